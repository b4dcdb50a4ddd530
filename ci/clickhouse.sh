# ClickHouse for ci/stack: the clickhouse of this machine, or else the library libchdb, which contains the whole server.
# shellcheck shell=bash disable=SC2154 # the options are ci/stack's

libchdb_version=26.7.3-stable.1

clickhouse_address() { echo "http://127.0.0.1:$clickhouse_port"; }

# Each port with the option that changes it
clickhouse_ports() {
  echo "$clickhouse_port --clickhouse-port"
  echo "$clickhouse_tcp --clickhouse-tcp-port"
}

clickhouse_answers() (
  exec 3<>"/dev/tcp/127.0.0.1/$clickhouse_port" || exit
  printf 'GET /ping HTTP/1.0\r\n\r\n' >&3
  read -r -t 1 answer <&3
  [[ $answer == *" 200 "* ]]
) 2>/dev/null

# Sets clickhouse_server to the server's program and its first arguments.
clickhouse_fetch() {
  local program package integrity
  if [ "${CLICKSTREAM_CLICKHOUSE:-}" != embedded ] && program=$(command -v clickhouse); then
    say "ClickHouse is $program (with CLICKSTREAM_CLICKHOUSE=embedded it would be libchdb)"
    # Without its watchdog: a kill has to hit the server, and only `up` may start it again.
    clickhouse_server=(env CLICKHOUSE_WATCHDOG_ENABLE=0 "$program" server)
    return
  fi
  # For another platform, add the output of `npm view @chdb/PACKAGE@VERSION dist.integrity`, once it was tried there.
  case $(uname -s)-$(uname -m) in
    Linux-x86_64)
      package=lib-linux-x64-gnu
      integrity=sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==
      ;;
    *) die "libchdb has no pinned checksum for $(uname -sm): install clickhouse, so that it is on the PATH" ;;
  esac
  local library=$package-$libchdb_version host
  host=$(made_from clickhouse-host "$ci/clickhouse-host.c")
  cached "$library" libchdb_download "$package" "$integrity"
  verified "$library" "$ci/libchdb/$library.sha256"
  cached "$host" libchdb_host
  clickhouse_server=("$cache/$host/clickhouse-host" "$cache/$library/libchdb.so" --log-level=warning
    --queries-file=clickhouse.sql)
}

libchdb_download() { # PACKAGE INTEGRITY
  local file got
  need npm npm node
  need tar tar gnu-tar
  say "fetching ClickHouse (178 MB)"
  npm pack --loglevel=error "@chdb/$1@$libchdb_version" >/dev/null || die "cannot download ClickHouse from npm"
  file=$(echo ./*.tgz)
  got=sha512-$(node -p 'crypto.createHash("sha512").update(fs.readFileSync(process.argv[1])).digest("base64")' "$file")
  [ "$got" = "$2" ] || die "@chdb/$1 has another checksum than the pinned one: $got"
  tar -xzf "$file" --strip-components=1 package/libchdb.so
  rm "$file"
}

libchdb_host() {
  need cc "gcc libc6-dev" gcc
  cc -O2 -Wall -o clickhouse-host "$ci/clickhouse-host.c" -ldl
}

clickhouse_start() {
  mkdir -p "$data/clickhouse"
  clickhouse_settings >"$data/clickhouse.xml"
  clickhouse_queries >"$data/clickhouse.sql"
  launch clickhouse "${clickhouse_server[@]}" --config-file="$data/clickhouse.xml"
}

# The library serves for as long as its last query runs: this one takes ten years. TCP first, so that a client that gets a ping's answer may use both.
clickhouse_queries() {
  cat <<'EOF'
SYSTEM START LISTEN TCP;
SYSTEM START LISTEN HTTP;
SELECT sleepEachRow(3) FROM numbers(100000000)
SETTINGS function_sleep_max_microseconds_per_block = 100000000000, max_block_size = 1 FORMAT Null;
EOF
}

clickhouse_settings() {
  local path
  path=$(sed 's/&/\&amp;/g; s/</\&lt;/g' <<<"$data")
  cat <<EOF
<clickhouse>
  <logger><console>1</console><level>warning</level></logger>
  <path>$path/clickhouse/</path>
  <listen_host>127.0.0.1</listen_host>
  <http_port>$clickhouse_port</http_port>
  <tcp_port>$clickhouse_tcp</tcp_port>
  <!-- a server's merges; the library by default has 2 threads for each, and warns of it several times a second -->
  <background_pool_size>16</background_pool_size>
  <background_schedule_pool_size>16</background_schedule_pool_size>
  <!-- by default 5 GB each -->
  <mark_cache_size>134217728</mark_cache_size>
  <index_mark_cache_size>67108864</index_mark_cache_size>
  <primary_index_cache_size>67108864</primary_index_cache_size>
  <user_directories><users_xml><path>$path/clickhouse.xml</path></users_xml></user_directories>
  <users>
    <default>
      <password></password>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <access_management>1</access_management>
    </default>
  </users>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
</clickhouse>
EOF
}
