# `bus-cli`, as a plain user. For your own services, build your own binary in its place: one whose
# `main` is `bus_cli::main()`.
ARG RUST=1.95

FROM rust:${RUST}-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package bus-cli

FROM debian:bookworm-slim
# The certificates are for rediss://.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin bus
COPY --from=build /src/target/release/bus-cli /usr/local/bin/bus-cli
USER bus
STOPSIGNAL SIGTERM
ENTRYPOINT ["bus-cli"]
# A binary of your own runs its services: CMD ["daemon"].
CMD ["daemon", "--maintenance"]
