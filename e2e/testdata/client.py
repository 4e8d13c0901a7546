"""Does with an etcd what Python's gRPC does, and prints each answer.

Usage: client.py TARGET DESCRIPTORS PREFIX [CA CERT KEY]

DESCRIPTORS is a FileDescriptorSet of etcd's API, from which the messages are
made, so that no generated code is needed. Answers are lines of JSON, without the
names that a cluster gives itself. The interpreter needs grpcio and protobuf.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

TIMEOUT = 60  # of any call; none takes long


class API:
    """The methods and messages of a set of descriptors."""

    def __init__(self, channel, path):
        self.channel = channel
        self.pool = descriptor_pool.DescriptorPool()
        self.factory = message_factory.MessageFactory(self.pool)
        files = descriptor_pb2.FileDescriptorSet()
        with open(path, "rb") as file:
            files.ParseFromString(file.read())
        for file in files.file:
            self.pool.Add(file)

    def message(self, name, **fields):
        descriptor = self.pool.FindMessageTypeByName(name)
        return self.factory.GetPrototype(descriptor)(**fields)

    def call(self, service, name):
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        response = self.factory.GetPrototype(method.output_type)
        make = {
            "Watch": self.channel.stream_stream,
            "LeaseKeepAlive": self.channel.stream_stream,
            "RangeStream": self.channel.unary_stream,
            "Snapshot": self.channel.unary_stream,
        }.get(name, self.channel.unary_unary)
        return make(
            "/%s/%s" % (service, name),
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=response.FromString,
        )


def show(what, message):
    """Prints a message without the ids in its header."""
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    header = fields.get("header", {})
    for name in ("cluster_id", "member_id", "raft_term"):
        header.pop(name, None)
    print(json.dumps({"what": what, "answer": fields}, sort_keys=True), flush=True)


def fail(what, error):
    print(json.dumps({"what": what, "code": error.code().name, "details": error.details()}), flush=True)


class Client:
    def __init__(self, api, prefix):
        self.api = api
        self.prefix = prefix

    def key(self, name):
        return self.prefix.encode() + name

    def end(self):
        return self.prefix.encode()[:-1] + b"0"

    def unary(self, what, service, name, request, **options):
        try:
            show(what, self.api.call(service, name)(request, timeout=TIMEOUT, **options))
        except grpc.RpcError as error:
            fail(what, error)

    def m(self, name, **fields):
        return self.api.message("etcdserverpb." + name, **fields)

    def kv(self, what, name, request, **options):
        self.unary(what, "etcdserverpb.KV", name, request, **options)

    def values(self):
        put = lambda **f: self.m("PutRequest", **f)
        get = lambda **f: self.m("RangeRequest", **f)
        self.kv("put", "Put", put(key=self.key(b"a"), value=b"one"))
        self.kv("put again", "Put", put(key=self.key(b"a"), value=b"two", prev_kv=True))
        self.kv("put any bytes", "Put", put(key=self.key(b"\xff\x00"), value=bytes(range(256)) * 400))
        self.kv("put, compressed", "Put", put(key=self.key(b"z"), value=b"z" * 10000), compression=grpc.Compression.Gzip)
        self.kv("range", "Range", get(key=self.key(b"a")))
        self.kv("range, compressed", "Range", get(key=self.key(b"z")), compression=grpc.Compression.Deflate)
        self.kv("list", "Range", get(key=self.key(b""), range_end=self.end(), sort_order=2, sort_target=3, limit=2))
        self.kv("range without a key", "Range", get())
        self.kv("range with metadata", "Range", get(key=self.key(b"a")), metadata=(("x-trace", "1"), ("x-bin", b"\x00\xff")))
        self.kv("txn", "Txn", self.txn())
        self.kv("txn again", "Txn", self.txn())
        self.kv("delete", "DeleteRange", self.m("DeleteRangeRequest", key=self.key(b"t"), prev_kv=True))

    def txn(self):
        key = self.key(b"t")
        put = self.m("RequestOp", request_put=self.m("PutRequest", key=key, value=b"from a txn"))
        get = self.m("RequestOp", request_range=self.m("RangeRequest", key=self.key(b""), range_end=self.end()))
        inner = self.m("RequestOp", request_txn=self.m("TxnRequest", success=[get]))
        compare = self.m("Compare", key=key, target=1, result=0, create_revision=0)
        return self.m("TxnRequest", compare=[compare], success=[put, inner], failure=[get])

    def range_stream(self):
        """Lists by RangeStream. Where it is cut is left to etcd."""
        request = self.m("RangeRequest", key=self.key(b""), range_end=self.end())
        whole = self.m("RangeResponse")
        try:
            for chunk in self.api.call("etcdserverpb.KV", "RangeStream")(request, timeout=TIMEOUT):
                whole.MergeFrom(chunk.range_response)
            show("range stream", whole)
        except grpc.RpcError as error:
            fail("range stream", error)

    def keep_alive(self):
        self.unary("grant", "etcdserverpb.Lease", "LeaseGrant", self.m("LeaseGrantRequest", ID=4711, TTL=1000))
        requests = [self.m("LeaseKeepAliveRequest", ID=4711), self.m("LeaseKeepAliveRequest", ID=1)]
        for answer in self.api.call("etcdserverpb.Lease", "LeaseKeepAlive")(iter(requests), timeout=TIMEOUT):
            show("keep alive", answer)

    def watch(self):
        """Watches from the first revision on: the events in order, and the end."""
        create = self.m("WatchCreateRequest", key=self.key(b""), range_end=self.end(), start_revision=1, watch_id=7)
        call = self.api.call("etcdserverpb.Watch", "Watch")(iter([self.m("WatchRequest", create_request=create)]), timeout=TIMEOUT)
        show("watch", next(call))
        self.kv("last put", "Put", self.m("PutRequest", key=self.key(b"end"), value=b"the end"))
        last = False
        while not last:
            for event in next(call).events:
                show("event", event)
                last = last or event.kv.key == self.key(b"end")
        call.cancel()
        try:
            next(call)
        except grpc.RpcError as error:
            fail("cancelled", error)


def main(target, descriptors, prefix, ca=None, cert=None, key=None):
    options = [("grpc.max_receive_message_length", -1)]
    if ca:
        read = lambda path: open(path, "rb").read()
        credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(cert))
        channel = grpc.secure_channel(target, credentials, options)
    else:
        channel = grpc.insecure_channel(target, options)
    with channel:
        client = Client(API(channel, descriptors), prefix)
        client.values()
        client.range_stream()
        client.keep_alive()
        client.watch()


main(*sys.argv[1:])
