//! Functions of librdkafka that its Rust binding lacks: reading a queue in batches, ids of topics and clusters, known
//! low and high watermarks, membership in a group, answers with unknown error codes, and a setting of the mock cluster.
//!
//! All the unsafe code of the project is in this file and, where libchdb is loaded, in `demo/guard.rs`.
//!
//! Brokers choose the codes of errors, and librdkafka passes on unknown ones. The binding's enum has no such values,
//! and a Rust enum must never hold another value (rust-rdkafka, issue 127). So codes are read here as the integers that
//! they are in C, and then converted.

use flows::Header;
use rdkafka::TopicPartitionList;
use rdkafka::client::NativeClient;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedHeaders;
use rdkafka::types::RDKafkaRespErr;
use rdkafka_sys as sys;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

/// Functions that return what a broker said, as rdkafka.h declares them but for the enum.
mod raw {
    use super::{c_char, c_int, sys};

    unsafe extern "C" {
        pub fn rd_kafka_event_error(event: *mut sys::rd_kafka_event_t) -> c_int;
        pub fn rd_kafka_error_code(error: *const sys::rd_kafka_error_t) -> c_int;
        pub fn rd_kafka_get_watermark_offsets(
            client: *mut sys::rd_kafka_t,
            topic: *const c_char,
            partition: i32,
            low: *mut i64,
            high: *mut i64,
        ) -> c_int;
        pub fn rd_kafka_commit(
            client: *mut sys::rd_kafka_t,
            places: *const sys::rd_kafka_topic_partition_list_t,
            is_async: c_int,
        ) -> c_int;
        pub fn rd_kafka_committed(
            client: *mut sys::rd_kafka_t,
            places: *mut sys::rd_kafka_topic_partition_list_t,
            timeout_ms: c_int,
        ) -> c_int;
        pub fn rd_kafka_offsets_for_times(
            client: *mut sys::rd_kafka_t,
            places: *mut sys::rd_kafka_topic_partition_list_t,
            timeout_ms: c_int,
        ) -> c_int;
    }
}

const NO_ERROR: c_int = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR as c_int;

/// The error of a code; `Unknown` for one that the binding does not know. None where there is no error.
fn error(code: c_int) -> Option<RDKafkaErrorCode> {
    (code != NO_ERROR).then(|| RDKafkaRespErr::try_from(code).map_or(RDKafkaErrorCode::Unknown, Into::into))
}

/// A queue that the partitions of a consumer are redirected into.
///
/// Reading it in batches costs a third of polling message by message, and leaving it unread is backpressure: librdkafka
/// stops fetching when it is full, while the consumer itself is still polled and so stays in its group.
pub struct Inbox {
    queue: NonNull<sys::rd_kafka_queue_t>,
    batch: Vec<*mut sys::rd_kafka_message_t>,
}

// SAFETY: a librdkafka queue may be used from any thread (rdkafka.h, "Queue API"); `batch` holds no pointer between calls.
unsafe impl Send for Inbox {}

/// A message in librdkafka's memory, or the error that a partition delivered instead.
pub struct RawRecord<'a> {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<&'a [u8]>,
    pub payload: Option<&'a [u8]>,
    pub error: Option<RDKafkaErrorCode>,
    message: NonNull<sys::rd_kafka_message_t>,
}

impl<'a> RawRecord<'a> {
    /// Kafka's timestamp: milliseconds since the Unix epoch.
    pub fn timestamp_ms(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message lives as long as this record, and `kind` is written with one of the enum's values.
        let ms = unsafe { sys::rd_kafka_message_timestamp(self.message.as_ptr(), &raw mut kind) };
        (ms >= 0).then_some(ms)
    }

    /// Appends its headers, without those whose name is no Unicode.
    pub fn headers(&self, headers: &mut Vec<Header<'a>>) {
        let mut list = ptr::null_mut();
        // SAFETY: the message, and the headers in it, live as long as this record; `list` is written before it is read.
        unsafe {
            let found = sys::rd_kafka_message_headers(self.message.as_ptr(), &raw mut list);
            if found as c_int == NO_ERROR {
                headers_of(list, headers);
            }
        }
    }
}

/// The headers of a message of the binding, without those whose name is no Unicode: the binding itself panics at such a name.
pub fn borrowed_headers(headers: Option<&BorrowedHeaders>) -> Vec<Header<'_>> {
    let mut all = Vec::new();
    if let Some(list) = headers {
        // SAFETY: a reference to `BorrowedHeaders` is librdkafka's own pointer, and these headers live as long as it does.
        unsafe { headers_of(ptr::from_ref(list).cast_mut().cast(), &mut all) };
    }
    all
}

/// # Safety
/// `list` are headers that live for `'a`.
unsafe fn headers_of<'a>(list: *mut sys::rd_kafka_headers_t, headers: &mut Vec<Header<'a>>) {
    for nth in 0.. {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: each pointer is written before it is read, and points to as many bytes as the length beside it says.
        unsafe {
            let found = sys::rd_kafka_header_get_all(list, nth, &raw mut name, &raw mut value, &raw mut size);
            if found as c_int != NO_ERROR {
                break;
            }
            if let Ok(name) = CStr::from_ptr(name).to_str() {
                headers.push((name, bytes(value, size)));
            }
        }
    }
}

impl Inbox {
    /// A new queue of a client, read at most `batch` messages at a time. It must be dropped before the client is.
    pub fn new(client: &NativeClient, batch: usize) -> Self {
        // SAFETY: the client's pointer is valid as long as it is borrowed; the function never returns null.
        let queue = unsafe { sys::rd_kafka_queue_new(client.ptr()) };
        Self {
            queue: NonNull::new(queue).expect("rd_kafka_queue_new allocates or aborts"),
            batch: vec![ptr::null_mut(); batch],
        }
    }

    /// A handle for [`Redirect::partition`].
    pub fn redirect(&self) -> Redirect {
        Redirect(self.queue)
    }

    /// Hands the waiting messages to `each`, in order, and returns their number. Waits for `wait` to fill a whole
    /// batch.
    pub fn take(&mut self, wait: Duration, mut each: impl FnMut(RawRecord<'_>)) -> usize {
        let wait_ms = millis(wait);
        // SAFETY: `batch` has room for as many pointers as its length says; the queue lives as long as self.
        let taken = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), wait_ms, self.batch.as_mut_ptr(), self.batch.len())
        };
        let taken = usize::try_from(taken).unwrap_or(0); // negative: an error, and nothing was taken
        for &message in &self.batch[..taken] {
            // SAFETY: librdkafka gave us this message; it is ours until it is destroyed, below, after its last use. Its
            // pointers are null or point to as many bytes as the lengths beside them say. It is never made a reference,
            // nor is its `err` read as the enum.
            unsafe {
                let error = error((&raw const (*message).err).cast::<c_int>().read());
                each(RawRecord {
                    partition: (*message).partition,
                    offset: (*message).offset,
                    key: bytes((*message).key, (*message).key_len),
                    payload: bytes((*message).payload, (*message).len).filter(|_| error.is_none()),
                    error,
                    message: NonNull::new_unchecked(message),
                });
                sys::rd_kafka_message_destroy(message);
            }
        }
        taken
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // SAFETY: the queue is ours and not used after this.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// Redirects partitions into an [`Inbox`]; used by the rebalance callback, on the thread that owns the inbox.
#[derive(Clone, Copy)]
pub struct Redirect(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: as for `Inbox`.
unsafe impl Send for Redirect {}
unsafe impl Sync for Redirect {}

impl Redirect {
    /// From now on, fetched messages of this partition go into the inbox. Call this before the partition is assigned:
    /// the assignment keeps a redirection by the application, and no message gets into the consumer's own queue.
    pub fn partition(self, client: &NativeClient, topic: &str, partition: i32) {
        let Ok(topic) = CString::new(topic) else { return };
        // SAFETY: the client is alive; a queue that was got is destroyed, which gives back only our reference to it. The
        // inbox outlives the consumer's assignment: the member drops it after it has left the group.
        unsafe {
            let from = sys::rd_kafka_queue_get_partition(client.ptr(), topic.as_ptr(), partition);
            if !from.is_null() {
                sys::rd_kafka_queue_forward(from, self.0.as_ptr());
                sys::rd_kafka_queue_destroy(from);
            }
        }
    }
}

/// # Safety
/// `data` is null or points to `len` bytes that live for `'a`.
unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: as promised by the caller.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data.cast(), len) })
}

/// The first offset and the one behind the last of a partition, as its last fetch said: without asking the broker.
pub fn known_watermarks(client: &NativeClient, topic: &str, partition: i32) -> Option<(i64, i64)> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (0, 0);
    // SAFETY: the client is alive, the name ends in NUL, both results are written before they are read.
    let code =
        unsafe { raw::rd_kafka_get_watermark_offsets(client.ptr(), topic.as_ptr(), partition, &mut low, &mut high) };
    (error(code).is_none() && low >= 0 && high >= 0).then_some((low, high))
}

/// Commits these offsets as this consumer's member of the group, and waits for the answer.
///
/// # Errors
/// The coordinator's answer, or that there is none.
pub fn commit(client: &NativeClient, places: &TopicPartitionList) -> KafkaResult<()> {
    // SAFETY: the client and the list are alive; 0 is for a commit that is waited for.
    let code = unsafe { raw::rd_kafka_commit(client.ptr(), places.ptr(), 0) };
    error(code).map_or(Ok(()), |code| Err(KafkaError::ConsumerCommit(code)))
}

/// The group's committed offsets of these partitions, each with its own error.
///
/// # Errors
/// When there is no answer for any of them.
pub fn committed(
    client: &NativeClient,
    places: TopicPartitionList,
    timeout: Duration,
) -> KafkaResult<TopicPartitionList> {
    // SAFETY: the client and the list are alive, and nothing else uses the list.
    let code = unsafe { raw::rd_kafka_committed(client.ptr(), places.ptr(), millis(timeout)) };
    answered(code, places)
}

/// The offsets of these partitions at the times that stand in their place, each with its own error.
///
/// # Errors
/// When nothing is known of any.
pub fn offsets_for_times(
    client: &NativeClient,
    places: TopicPartitionList,
    timeout: Duration,
) -> KafkaResult<TopicPartitionList> {
    // SAFETY: as for `committed`.
    let code = unsafe { raw::rd_kafka_offsets_for_times(client.ptr(), places.ptr(), millis(timeout)) };
    answered(code, places)
}

/// The list, in which each error is one that the binding may read.
fn answered(code: c_int, places: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
    // SAFETY: the list is alive and ours; it has `cnt` elements. `err` is read and written as the integer that it is in C.
    unsafe {
        let list = places.ptr();
        for nth in 0..usize::try_from((*list).cnt).unwrap_or(0) {
            let err = (&raw mut (*(*list).elems.add(nth)).err).cast::<c_int>();
            err.write(error(err.read()).map_or(NO_ERROR, |code| code as c_int));
        }
    }
    error(code).map_or(Ok(places), |code| Err(KafkaError::MetadataFetch(code)))
}

/// As librdkafka takes it.
fn millis(time: Duration) -> c_int {
    c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX)
}

/// Adds brokers, HOST:PORT separated by commas, to those that a client knows.
pub fn add_brokers(client: &NativeClient, brokers: &str) {
    let Ok(brokers) = CString::new(brokers) else { return };
    // SAFETY: the client is alive, and the text ends in NUL.
    unsafe { sys::rd_kafka_brokers_add(client.ptr(), brokers.as_ptr()) };
}

/// A consumer's member id: none before it has joined, and while it leaves. A member that is evicted and joins again has
/// another one.
pub fn member_id(client: &NativeClient) -> Option<String> {
    // SAFETY: the client is alive; the result is null or a text of ours, read before it is freed.
    unsafe {
        let id = sys::rd_kafka_memberid(client.ptr());
        let text = (!id.is_null()).then(|| CStr::from_ptr(id).to_string_lossy().into_owned());
        sys::rd_kafka_mem_free(client.ptr(), id.cast());
        text.filter(|text| !text.is_empty())
    }
}

/// The id of the cluster that a client is connected to (KIP-78), as soon as it has heard of it. None where the brokers have none,
/// or where none has answered within `timeout`. The binding's own function never frees the text.
pub fn cluster_id(client: &NativeClient, timeout: Duration) -> Option<String> {
    // SAFETY: the client is alive; the result is null or a text of ours, read before it is freed.
    unsafe {
        let id = sys::rd_kafka_clusterid(client.ptr(), millis(timeout));
        let text = (!id.is_null()).then(|| CStr::from_ptr(id).to_string_lossy().into_owned());
        sys::rd_kafka_mem_free(client.ptr(), id.cast());
        text
    }
}

/// Makes this client's mock cluster, if there is one, wait this long before it assigns partitions to a group's first
/// member, instead of 3 s.
pub fn first_rebalance_after(client: &NativeClient, wait: Duration) {
    let wait_ms = millis(wait);
    // SAFETY: the client is alive, and its mock cluster lives as long as it does; null means that it has none.
    unsafe {
        let cluster = sys::rd_kafka_handle_mock_cluster(client.ptr());
        if !cluster.is_null() {
            sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, wait_ms);
        }
    }
}

/// The id of a topic (KIP-516), base64 as Kafka's tools print it. None if the broker says that it has none.
///
/// # Errors
/// The broker's error, for example that the topic does not exist. Or that no answer came within `timeout`: this never
/// counts as a topic without an id, whose rows would not be found under its id.
pub fn topic_id(client: &NativeClient, topic: &str, timeout: Duration) -> Result<Option<String>, RDKafkaErrorCode> {
    let Ok(name) = CString::new(topic) else { return Ok(None) };
    let names = &mut [name.as_ptr()];
    // SAFETY: the names live until this returns, and librdkafka copies them.
    let answer = unsafe {
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let ask = |rk, options: *mut _, queue| sys::rd_kafka_DescribeTopics(rk, topics, options, queue);
        let answer = asked(client, kind, timeout, ask, |event| described_id(event));
        sys::rd_kafka_TopicCollection_destroy(topics);
        answer
    };
    match answer {
        Err(RDKafkaErrorCode::UnsupportedFeature) => Ok(None),
        answer => answer,
    }
}

/// # Safety
/// `event` lives until this returns.
unsafe fn described_id(event: *mut sys::rd_kafka_event_t) -> Result<Option<String>, RDKafkaErrorCode> {
    // SAFETY: librdkafka's accessors accept any event of theirs and give null for one of another kind; the descriptions
    // and the id belong to the event.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::Unknown);
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count == 0 {
            return Err(RDKafkaErrorCode::Unknown);
        }
        let topic = *topics;
        if let Some(error) = error(raw::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(topic))) {
            return Err(error);
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() {
            return Ok(None);
        }
        let text = CStr::from_ptr(sys::rd_kafka_Uuid_base64str(id)).to_string_lossy().into_owned();
        // A broker without topic ids answers with the id of all zeros.
        Ok(Some(text).filter(|text| text.bytes().any(|byte| byte != b'A')))
    }
}

/// A consumer group, as its coordinator describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// How its members share the partitions; empty where it has none.
    pub assignor: String,
    /// Client id, host, and number of partitions of each member.
    pub members: Vec<(String, String, usize)>,
    /// Whether this client may join it and commit; none where the coordinator does not say.
    pub may_read: Option<bool>,
}

/// The members of a group, and the rights of this client to it. A group that is not there has no members.
///
/// # Errors
/// The coordinator's error, or that there is no answer.
pub fn group(client: &NativeClient, name: &str, timeout: Duration) -> Result<Group, RDKafkaErrorCode> {
    let Ok(name) = CString::new(name) else { return Ok(Group::default()) };
    let names = &mut [name.as_ptr()];
    let ask = |rk, options: *mut _, queue| {
        // SAFETY: the client and the queue are alive, the names live until this function returns, and librdkafka copies them. An error
        // that is returned is ours, and null may be destroyed as well.
        unsafe {
            let refused = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
            sys::rd_kafka_error_destroy(refused);
            sys::rd_kafka_DescribeConsumerGroups(rk, names.as_mut_ptr(), 1, options, queue);
        }
    };
    let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    // SAFETY: the event that is read lives until `described_group` returns.
    match asked(client, kind, timeout, ask, |event| unsafe { described_group(event) }) {
        Err(RDKafkaErrorCode::GroupIdNotFound) => Ok(Group::default()),
        answer => answer,
    }
}

/// # Safety
/// `event` lives until this returns.
unsafe fn described_group(event: *mut sys::rd_kafka_event_t) -> Result<Group, RDKafkaErrorCode> {
    // SAFETY: as for `described_id`; the members and their texts belong to the event, too. Operations are read as the integers that they
    // are in C.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::Unknown);
        }
        let mut count = 0;
        let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        if count == 0 {
            return Err(RDKafkaErrorCode::Unknown);
        }
        let group = *groups;
        if let Some(error) = error(raw::rd_kafka_error_code(sys::rd_kafka_ConsumerGroupDescription_error(group))) {
            return Err(error);
        }
        let members = (0..sys::rd_kafka_ConsumerGroupDescription_member_count(group)).map(|nth| {
            let member = sys::rd_kafka_ConsumerGroupDescription_member(group, nth);
            let assignment = sys::rd_kafka_MemberDescription_assignment(member);
            let partitions = sys::rd_kafka_MemberAssignment_partitions(assignment);
            let count = if partitions.is_null() { 0 } else { usize::try_from((*partitions).cnt).unwrap_or(0) };
            let (client, host) =
                (sys::rd_kafka_MemberDescription_client_id(member), sys::rd_kafka_MemberDescription_host(member));
            (text(client), text(host), count)
        });
        let mut count = 0;
        let operations = sys::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &mut count);
        let reads = [
            sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ as c_int,
            sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_ALL as c_int,
        ];
        let may_read = (!operations.is_null()).then(|| {
            slice::from_raw_parts(operations.cast::<c_int>(), count).iter().any(|operation| reads.contains(operation))
        });
        let assignor = text(sys::rd_kafka_ConsumerGroupDescription_partition_assignor(group));
        Ok(Group { assignor, members: members.collect(), may_read })
    }
}

/// # Safety
/// `data` is null or a text that ends in NUL.
unsafe fn text(data: *const c_char) -> String {
    // SAFETY: as promised by the caller.
    if data.is_null() { String::new() } else { unsafe { CStr::from_ptr(data) }.to_string_lossy().into_owned() }
}

/// Sends a request of the admin API, and reads the event with its answer.
///
/// # Errors
/// The error of the event, or that none came within `timeout`.
fn asked<T>(
    client: &NativeClient,
    kind: sys::rd_kafka_admin_op_t,
    timeout: Duration,
    ask: impl FnOnce(*mut sys::rd_kafka_t, *mut sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
    read: impl FnOnce(*mut sys::rd_kafka_event_t) -> Result<T, RDKafkaErrorCode>,
) -> Result<T, RDKafkaErrorCode> {
    let timeout_ms = millis(timeout);
    // SAFETY: every object is made by librdkafka and destroyed once, after its last use. The event is read before it is destroyed. The
    // error text buffer has the given length.
    unsafe {
        let rk = client.ptr();
        let options = sys::rd_kafka_AdminOptions_new(rk, kind);
        let mut said = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, said.as_mut_ptr(), said.len());
        let queue = sys::rd_kafka_queue_new(rk);
        ask(rk, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms + 500);
        let answer = if event.is_null() {
            Err(RDKafkaErrorCode::OperationTimedOut)
        } else {
            let answer = match error(raw::rd_kafka_event_error(event)) {
                Some(error) => Err(error),
                None => read(event),
            };
            sys::rd_kafka_event_destroy(event);
            answer
        };
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::OwnedHeaders;
    use rdkafka::{ClientConfig, Offset};
    use std::time::Instant;

    const FETCH: i16 = 1;
    const LIST_OFFSETS: i16 = 2;
    const OFFSET_COMMIT: i16 = 8;
    const OFFSET_FETCH: i16 = 9;

    /// A code that no release of Kafka has.
    const UNHEARD_OF: c_int = 3_000;

    /// Has the next `count` requests of a kind fail with a code that the binding's own function cannot be given.
    fn fail_next(client: &NativeClient, kind: i16, code: c_int, count: usize) {
        unsafe extern "C" {
            fn rd_kafka_mock_push_request_errors_array(
                cluster: *mut sys::rd_kafka_mock_cluster_t,
                kind: i16,
                count: usize,
                codes: *const c_int,
            );
        }
        let codes = vec![code; count];
        // SAFETY: the client is alive and has a mock cluster, which copies as many codes as it is told.
        unsafe {
            let cluster = sys::rd_kafka_handle_mock_cluster(client.ptr());
            rd_kafka_mock_push_request_errors_array(cluster, kind, count, codes.as_ptr());
        }
    }

    /// A consumer of a mock cluster of its own.
    fn consumer() -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", "1").set("group.id", "g").set("fetch.error.backoff.ms", "0");
        config.create().unwrap()
    }

    #[test]
    fn a_code_that_nobody_knows_is_an_error_like_any_other() {
        assert_eq!(error(0), None);
        assert_eq!(error(3), Some(RDKafkaErrorCode::UnknownTopicOrPartition));
        for code in [UNHEARD_OF, -1, 255, c_int::MIN, c_int::MAX, -201] {
            assert_eq!(error(code), Some(RDKafkaErrorCode::Unknown), "{code}");
        }
        let consumer = consumer();
        let native = consumer.client().native_client();
        let mut inbox = Inbox::new(native, 10);
        inbox.redirect().partition(native, "clicks", 0);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("clicks", 0, Offset::Beginning).unwrap();
        consumer.client().mock_cluster().unwrap().create_topic("clicks", 1, 1).unwrap();
        fail_next(native, FETCH, UNHEARD_OF, 100);
        consumer.assign(&list).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut seen = None;
        while seen.is_none() && Instant::now() < deadline {
            let _ = consumer.poll(Duration::from_millis(10));
            inbox.take(Duration::from_millis(10), |record| seen = seen.or(record.error));
        }
        assert_eq!(seen, Some(RDKafkaErrorCode::Unknown));
        drop(inbox);
    }

    #[test]
    fn an_answer_about_offsets_with_such_a_code_is_an_error_too() {
        let consumer = consumer();
        let native = consumer.client().native_client();
        consumer.client().mock_cluster().unwrap().create_topic("clicks", 1, 1).unwrap();
        let place = |offset| {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset("clicks", 0, offset).unwrap();
            list
        };
        let unknown = |answer: KafkaResult<TopicPartitionList>| {
            let own = answer.and_then(|list| list.elements()[0].error());
            own.unwrap_err().rdkafka_error_code() == Some(RDKafkaErrorCode::Unknown)
        };
        let patience = Duration::from_secs(30);
        for kind in [OFFSET_COMMIT, OFFSET_FETCH, LIST_OFFSETS] {
            fail_next(native, kind, UNHEARD_OF, 1);
        }
        assert_eq!(
            commit(native, &place(Offset::Offset(1))),
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::Unknown))
        );
        assert!(unknown(committed(native, place(Offset::Invalid), patience)));
        assert!(unknown(offsets_for_times(native, place(Offset::Beginning), patience)));
        // And without: they do what they are there for.
        commit(native, &place(Offset::Offset(7))).unwrap();
        let committed = committed(native, place(Offset::Invalid), patience).unwrap();
        assert_eq!(committed.elements()[0].offset(), Offset::Offset(7));
        let begins = offsets_for_times(native, place(Offset::Beginning), patience).unwrap();
        assert_eq!(begins.elements()[0].error(), Ok(()));
    }

    #[test]
    fn a_header_whose_name_is_no_unicode_is_left_out_and_the_others_keep_their_order() {
        let headers = OwnedHeaders::new();
        let list = ptr::from_ref(headers.as_borrowed()).cast_mut().cast();
        for (name, value) in [("b", Some(&b"\xff\0"[..])), ("\u{e9}", None), ("b", Some(b""))] {
            for name in [name.as_bytes(), b"\xe9"] {
                // SAFETY: the headers live, and each pointer is null or points to as many bytes as the length beside it says.
                let added = unsafe {
                    let value_at = value.map_or(ptr::null(), <[u8]>::as_ptr);
                    let (name_at, bytes) = (name.as_ptr().cast(), value.map_or(0, <[u8]>::len));
                    sys::rd_kafka_header_add(list, name_at, name.len() as isize, value_at.cast(), bytes as isize)
                };
                assert_eq!(added as c_int, NO_ERROR);
            }
        }
        let expected = [("b", Some(&b"\xff\0"[..])), ("\u{e9}", None), ("b", Some(b""))];
        assert_eq!(borrowed_headers(Some(headers.as_borrowed())), expected);
        assert_eq!(borrowed_headers(None), []);
    }

    #[test]
    fn a_broker_that_does_not_answer_has_not_said_that_there_is_no_id() {
        // A closed port.
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").create().unwrap();
        assert!(topic_id(client.client().native_client(), "clicks", Duration::from_millis(200)).is_err());
        assert_eq!(cluster_id(client.client().native_client(), Duration::from_millis(200)), None);
    }

    #[test]
    fn a_cluster_says_its_id_and_it_is_known_from_then_on() {
        let consumer = consumer();
        let native = consumer.client().native_client();
        let id = cluster_id(native, Duration::from_secs(30));
        assert!(id.as_ref().is_some_and(|id| id.starts_with("mockCluster")), "{id:?}");
        assert_eq!(cluster_id(native, Duration::ZERO), id);
    }
}
