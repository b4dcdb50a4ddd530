# One image for all of our services, which differ by their command: setup, produce, ingest, secrets, health, audit ...

ARG RUST_IMAGE=rust:1.95-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1
ARG DEBIAN_IMAGE=debian:bookworm-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251

FROM ${RUST_IMAGE} AS build
WORKDIR /build
# Without the symbols for a debugger, which are most of the program's size.
ENV CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=debuginfo
# The dependencies, OpenSSL and librdkafka among them, in a layer of their own. It is built again only when one of these
# three files changes, since our own sources are empty in it.
COPY Cargo.toml Cargo.lock ./
COPY flows/Cargo.toml flows/
# Cargo wants a file for each test and benchmark that they name, also where it builds none.
RUN mkdir -p src tests/faults benches flows/src flows/benches \
 && echo 'fn main() {}' >src/main.rs \
 && touch src/lib.rs tests/faults/main.rs benches/encode.rs \
    flows/src/lib.rs flows/benches/decode.rs flows/benches/ingest.rs \
 && cargo build --release --locked
COPY . .
# The image's own sources have no git: `docker build --build-arg CLICKSTREAM_COMMIT=$(git rev-parse --short=12 HEAD) .`
ARG CLICKSTREAM_COMMIT=
# Cargo compares times of change, and the empty files are younger than the real ones.
RUN touch src/main.rs src/lib.rs flows/src/lib.rs \
 && cargo build --release --locked \
 && install -D target/release/clickstream /out/clickstream

# The image has the C library that the program was built against. The program contains the certificates.
FROM ${DEBIAN_IMAGE}
LABEL org.opencontainers.image.title="clickstream" \
      org.opencontainers.image.description="Kafka to ClickHouse click events: nothing lost, nothing twice, in less than five seconds" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# New volumes that are mounted here get the owner and mode of these directories: user 65532, and nobody else may write.
RUN for name in secrets/owner secrets/writer secrets/eraser secrets/reader secrets/clickhouse state latency; do install -d -o 65532 -g 65532 "/$name"; done
COPY --from=build /out/clickstream /usr/local/bin/clickstream
USER 65532:65532
ENTRYPOINT ["clickstream"]
CMD ["--help"]
