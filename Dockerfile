# syntax=docker/dockerfile:1
# The worker's image: compile dependencies once (RocksDB takes most of the time), then our code, then only what runs.

FROM rust:1.95.0-bookworm AS chef
# RocksDB's bindings need libclang; librdkafka's TLS needs OpenSSL's headers, which this image has.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libclang-dev \
    && rm -rf /var/lib/apt/lists/*
# The image has the compiler that rust-toolchain.toml names; without this rustup would fetch formatter and lints too.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN cargo install cargo-chef --version 0.1.78 --locked
WORKDIR /build

FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS builder
COPY --from=planner /build/recipe.json recipe.json
# This layer changes only with Cargo.toml and Cargo.lock.
RUN cargo chef cook --profile dist --package tripline --recipe-path recipe.json
COPY . .
RUN cargo build --profile dist --locked --package tripline

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 libstdc++6 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65532 -g 65532 /var/lib/tripline
COPY --from=builder /build/target/dist/tripline /usr/local/bin/tripline
COPY config/packs /etc/tripline/packs
# Rules come with the image; state and event store go to the volume. Metrics are for the container's network, so keep it private.
ENV TRIPLINE_RULES__PATH=/etc/tripline/packs/anomaly-infra \
    TRIPLINE_STATE__DIR=/var/lib/tripline/state \
    TRIPLINE_SINK__URL=sqlite:///var/lib/tripline/events.db \
    TRIPLINE_ADMIN__LISTEN=0.0.0.0:9464
USER 65532:65532
WORKDIR /var/lib/tripline
VOLUME /var/lib/tripline
EXPOSE 9464
# The worker answers SIGTERM by committing what it has; give it time (docker stop --timeout 60).
STOPSIGNAL SIGTERM
ENTRYPOINT ["tripline"]
CMD ["run"]
