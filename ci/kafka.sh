# Kafka for ci/stack: each broker is a controller too (KRaft), so three make a whole cluster.
# shellcheck shell=bash disable=SC2154 # the options are ci/stack's

kafka_node() { case $1 in *-*) echo "${1#*-}" ;; *) echo 1 ;; esac; }
kafka_beyond() { echo $(($1 + 10 * ($(kafka_node "$2") - 1))); } # FIRST-PORT SERVICE
kafka_address() { echo "127.0.0.1:$(kafka_beyond "$kafka_port" "$1")"; }

# Each port with the option that changes it
kafka_ports() {
  echo "$(kafka_beyond "$kafka_port" "$1") --kafka-port"
  echo "$(kafka_beyond "$controller" "$1") --controller-port"
}

# The port opens some time before the broker is ready. The log is that of this start alone.
kafka_answers() { grep -qs 'Kafka Server started' "$data/$1.log" && accepts "$(kafka_beyond "$kafka_port" "$1")"; }

kafka_fetch() {
  local version
  need java openjdk-17-jre-headless openjdk
  version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' || true)
  [ "${version:-0}" -ge 17 ] || missing "java 17 (this one is ${version:-none})" openjdk-17-jre-headless openjdk
  kafka_jars=$(made_from kafka "$ci/kafka/pom.xml")
  cached "$kafka_jars" kafka_download
  verified "$kafka_jars" "$ci/kafka/SHA256SUMS"
  kafka_jars="$cache/$kafka_jars/*"
}

kafka_download() {
  need mvn maven maven
  say "fetching Kafka (54 MB)"
  mvn -q -B -C -f "$ci/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PWD" 2>&1 |
    sed $'s/\e\\[[0-9;]*m//g' || die "cannot download Kafka from Maven Central" # sed, because some builds of mvn colour even a pipe
  has_only "$PWD" "$ci/kafka/SHA256SUMS" || die "Kafka's jars differ from the checksums in ci/kafka/SHA256SUMS"
}

kafka_java() { java -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$kafka_jars" "$@"; }

kafka_start() { # SERVICE
  local heap settings=$data/$1.properties
  kafka_settings "$1" >"$settings"
  if [ ! -f "$data/$1/meta.properties" ]; then
    kafka_java kafka.tools.StorageTool format --ignore-formatted -t "$cluster" -c "$settings" \
      ${STACK_KAFKA_SCRAM:+--add-scram "$STACK_KAFKA_SCRAM"} >"$data/$1.log" 2>&1 ||
      fail "$1" "could not format its storage"
  fi
  read -ra heap <<<"${STACK_KAFKA_HEAP:--Xmx512m -Xms256m}"
  launch "$1" java "${heap[@]}" -XX:+ExitOnOutOfMemoryError -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -Dorg.slf4j.simpleLogger.log.kafka.server=info -Dorg.slf4j.simpleLogger.showDateTime=true \
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS" -cp "$kafka_jars" kafka.Kafka "$settings"
}

kafka_settings() { # SERVICE
  local voters='' broker in_sync=$(((brokers + 1) / 2))
  for broker in $(services kafka); do
    voters=$voters${voters:+,}$(kafka_node "$broker")@127.0.0.1:$(kafka_beyond "$controller" "$broker")
  done
  cat <<EOF
process.roles=broker,controller
node.id=$(kafka_node "$1")
controller.quorum.voters=$voters
listeners=PLAINTEXT://$(kafka_address "$1"),CONTROLLER://127.0.0.1:$(kafka_beyond "$controller" "$1")
advertised.listeners=PLAINTEXT://${STACK_KAFKA_ADVERTISED:-$(kafka_address "$1")}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$data/$1
log.retention.hours=-1
auto.create.topics.enable=false
default.replication.factor=$brokers
min.insync.replicas=$in_sync
offsets.topic.replication.factor=$brokers
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$brokers
transaction.state.log.min.isr=$in_sync
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=$brokers
share.coordinator.state.topic.min.isr=$in_sync
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# A killed broker may join again when its last session is over, by default after 9 s
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# By default 128 MB of the heap
log.cleaner.dedupe.buffer.size=4194304
EOF
  # Of two lines with one key, the later one counts.
  [ -z "${STACK_KAFKA_PROPERTIES:-}" ] || cat "$STACK_KAFKA_PROPERTIES"
}
