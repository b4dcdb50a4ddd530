//! A member is removed from its group by hand, as Kafka's `removeMembersFromConsumerGroup` does it. librdkafka has no such call.

use super::kafka::Kafka;
use std::io::{Read, Write};
use std::net::TcpStream;

/// `LeaveGroup`, in the first version that can name members other than the sender.
const LEAVE_GROUP: (i16, i16) = (13, 3);

impl Kafka {
    /// Removes this member. The one broker of the cluster has to be the group's coordinator.
    pub fn remove_member(&self, group: &str, member_id: &str) {
        let mut request = Vec::new();
        request.extend(LEAVE_GROUP.0.to_be_bytes());
        request.extend(LEAVE_GROUP.1.to_be_bytes());
        request.extend(1_i32.to_be_bytes()); // correlation id
        string(&mut request, "admin");
        string(&mut request, group);
        request.extend(1_i32.to_be_bytes()); // members
        string(&mut request, member_id);
        request.extend((-1_i16).to_be_bytes()); // no instance id: a member id is enough

        let mut broker = TcpStream::connect(&self.brokers).expect("the broker listens");
        let length = u32::try_from(request.len()).expect("it is short");
        broker.write_all(&[&length.to_be_bytes()[..], &request].concat()).expect("the broker takes it");
        let mut length = [0; 4];
        broker.read_exact(&mut length).expect("the broker answers");
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        broker.read_exact(&mut answer).expect("the broker answers");
        // Behind the correlation id and the throttle time; and at the end, for the one member.
        let (whole, one) = (&answer[8..10], &answer[answer.len() - 2..]);
        assert_eq!([whole, one].concat(), [0; 4], "error codes of LeaveGroup");
    }
}

fn string(request: &mut Vec<u8>, text: &str) {
    request.extend(i16::try_from(text.len()).expect("it is short").to_be_bytes());
    request.extend(text.as_bytes());
}
