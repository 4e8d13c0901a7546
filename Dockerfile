# Build with the version that git knows, for the same bytes as `make build`:
#   docker build --build-arg VERSION=$(git describe --tags --always --dirty) -t etcdseal .
FROM golang:1.26-trixie AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN make build VERSION="$VERSION"

# Nothing but the program and the public authorities' certificates: no shell, no
# libc, no package manager.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/bin/etcdseal /etcdseal
# Any user but root. The key files must belong to it.
USER 65532:65532
ENTRYPOINT ["/etcdseal"]
CMD ["serve", "--config", "/etc/etcdseal/etcdseal.yaml"]
