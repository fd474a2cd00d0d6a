# The gateway alone: no shell, no package manager, no root.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# `--build-arg GUIDED=yes`: as releases are built, by what the program does under load. Half an hour, for a tenth less CPU.
ARG GUIDED=
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target set -eu; \
    if [ -n "$GUIDED" ]; then scripts/ensure-postgres; program=$(scripts/release); \
    else cargo build --release --locked --bin vestibule; program=target/release/vestibule; fi; \
    cp "$program" /vestibule
# The program, the libraries that it is linked with, the authorities that it trusts, and names for the resolver and for
# its user.
RUN set -eu; mkdir -p /image/etc/ssl/certs /image/etc/vestibule /image/usr/local/bin; \
    cp /vestibule /image/usr/local/bin/; \
    ldd /vestibule | grep -o '/[^ ]*' | xargs -I{} cp --parents --dereference {} /image; \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    echo 'hosts: files dns' > /image/etc/nsswitch.conf; \
    echo 'vestibule:x:65532:65532::/:/none' > /image/etc/passwd; \
    echo 'vestibule:x:65532:' > /image/etc/group

FROM scratch
COPY --from=build /image/ /
USER 65532:65532
WORKDIR /etc/vestibule
EXPOSE 8080
# SIGTERM drains; give it longer than server.shutdown_grace.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/vestibule"]
CMD ["serve", "--config", "/etc/vestibule/gateway.toml"]
