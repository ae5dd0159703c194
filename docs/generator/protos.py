"""docs/reference/admin-api.md and inference-api.md, from protos/ and its comments."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc  # type: ignore[import-untyped]

from gateway.wire.decode import KNOWN_TRITON_PARAMETERS
from gateway.worker.inference_service import EXTENSIONS
from gateway.worker.streams import GRPC_ERRORS
from gateway.worker.target import ANSWERED_BY
from generator.markdown import NOTHING, code, heading, sentence, table
from runtime.onnx.dtypes import DATATYPES

PROTOS = Path(__file__).resolve().parents[2] / "protos"

# Field numbers of descriptor.proto, by which source locations name what they belong to.
MESSAGES, ENUMS, SERVICES, FIELDS, NESTED, METHODS, VALUES = 4, 5, 6, 2, 3, 2, 2

Place = tuple[int, ...]


def admin_page() -> str:
    file = _read("driftgate/admin/v1/admin.proto")
    introduction = (
        "The API of the admin port (8003). `driftgate` commands use it, and so may any gRPC client. A request carries "
        "`authorization: Bearer <token>` in its metadata where a token is configured. `driftgate-actor` names who "
        "asks, for the audit; it is a claim, and is recorded behind what was proven (`token:`, `cert:`, `loopback:`).\n"
        "\nErrors are those of [the error table](errors.md).\n"
    )
    return heading("Admin API", "protos/driftgate/admin/v1/admin.proto") + introduction + _ProtoPage(file).text()


def inference_page() -> str:
    service = _ProtoPage(_read("inference/grpc_service.proto")).text()
    config = _ProtoPage(_read("inference/model_config.proto")).text()
    source = "protos/inference, runtime/onnx/dtypes.py and gateway/worker"
    return (
        heading("Inference API", source)
        + "The API of the data port (8001): the Open Inference Protocol v2 with the extension RPCs of Triton Inference "
        "Server, in Triton's dialect. How to call it: [clients](../how-to/clients.md). Errors: [errors](errors.md).\n\n"
        + _conventions()
        + service
        + "\n## Model configuration\nWhat ModelConfig answers, and the part of `config.pbtxt` that is read.\n\n"
        + config
    )


def _conventions() -> str:
    headers = ("datatype", "ONNX type", "bytes", "field of typed contents")
    rows = [
        (
            code(d.name),
            code(d.onnx),
            str(d.size_bytes or "4 + its length"),
            code(d.contents) if d.contents else "raw only",
        )
        for d in DATATYPES
    ]
    known = ", ".join(code(name) for name in sorted(KNOWN_TRITON_PARAMETERS))
    metadata = [
        (
            code(ANSWERED_BY),
            "response header",
            (
                'What answered, an Item of RFC 9651: `3;digest="sha256:<hex>";variant="canary";reason=sticky`: the '
                "version, the digest of its files, the arm that was taken (`default`, `pinned`, a label, a variant, "
                "`rule/variant`), and what chose it (`default`, `version`, `label`, `rule`, `sticky` or `drawn`). "
                "Variant and reason only where the model has a route or the client named a version or label. Unary "
                "calls only."
            ),
        ),
        (code(GRPC_ERRORS), "request, ModelStreamInfer", "`true`: an error ends the stream with a status."),
        (code("authorization"), "request, RepositoryModelLoad and Unload", "`Bearer <token>`, where it is asked for."),
    ]
    parameters = [
        (code("timeout"), "int64, microseconds", "The request is refused if it waits longer. 0: no such limit."),
        (known, "bool", "On a stream: the answer carries `triton_final_response`."),
        ("other `triton_*` names", "", "Refused with INVALID_ARGUMENT."),
        ("other names", "", "Ignored, but where the model's route takes its sticky key from one."),
    ]
    return "\n".join(
        (
            "## Datatypes\n",
            table(headers, rows),
            "## Metadata\n",
            table(("name", "where", "meaning"), metadata),
            "Variant and reason are sent where the model has a route, or the request names a version or label.\n",
            "## Request parameters\n",
            table(("name", "type", "meaning"), parameters),
            f"ServerMetadata names these extensions: {', '.join(code(name) for name in EXTENSIONS)}.\n\n",
        )
    )


def _read(name: str) -> FileDescriptorProto:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set"
        well_known = resources.files("grpc_tools") / "_proto"
        arguments = [f"-I{PROTOS}", f"-I{well_known}", "--include_source_info", f"--descriptor_set_out={target}", name]
        if protoc.main(["protoc", *arguments]) != 0:
            raise RuntimeError(f"protoc cannot read {name}")
        return FileDescriptorSet.FromString(target.read_bytes()).file[0]


class _ProtoPage:
    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._package = f".{file.package}."
        self._comments: dict[Place, str] = {}
        self._groups: dict[Place, str] = {}
        for location in file.source_code_info.location:
            place = tuple(location.path)
            self._comments[place] = " ".join((location.leading_comments + location.trailing_comments).split())
            if location.leading_detached_comments:
                self._groups[place] = " ".join(location.leading_detached_comments[-1].split())

    def text(self) -> str:
        parts = [self._service(service, (SERVICES, i)) for i, service in enumerate(self._file.service)]
        parts += [self._enum(enum, (ENUMS, i), "") for i, enum in enumerate(self._file.enum_type)]
        for i, message in enumerate(self._file.message_type):
            parts += self._message(message, (MESSAGES, i), "")
        return "\n".join(parts)

    def _service(self, service: ServiceDescriptorProto, place: Place) -> str:
        rows: list[tuple[str, ...]] = []
        for i, method in enumerate(service.method):
            where = (*place, METHODS, i)
            asks, answers = (self._short(name) for name in (method.input_type, method.output_type))
            asks = f"stream of {asks}" if method.client_streaming else asks
            answers = f"stream of {answers}" if method.server_streaming else answers
            if group := self._groups.get(where):
                rows.append((f"**{group}**", "", "", ""))
            rows.append((code(method.name), asks, answers, sentence(self._comments.get(where, ""))))
        name = f"{self._file.package}.{service.name}"
        return f"## Service {name}\n\n" + table(("RPC", "request", "response", "meaning"), rows)

    def _message(self, message: DescriptorProto, place: Place, outer: str) -> Iterator[str]:
        if message.options.map_entry:
            return
        name = f"{outer}{message.name}"
        comment = sentence(self._comments.get(place, ""))
        maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
        rows = [
            (
                str(field.number),
                code(field.name),
                self._type(field, maps),
                self._meaning(message, field, (*place, FIELDS, i)),
            )
            for i, field in enumerate(message.field)
        ]
        body = table(("number", "field", "type", "meaning"), rows) if rows else "No fields.\n"
        yield f"### {name}\n\n" + (f"{comment}\n\n" if comment else "") + body
        for i, enum in enumerate(message.enum_type):
            yield self._enum(enum, (*place, 4, i), f"{name}.")
        for i, nested in enumerate(message.nested_type):
            yield from self._message(nested, (*place, NESTED, i), f"{name}.")

    def _enum(self, enum: EnumDescriptorProto, place: Place, outer: str) -> str:
        rows = [
            (str(value.number), code(value.name), sentence(self._comments.get((*place, VALUES, i), "")))
            for i, value in enumerate(enum.value)
        ]
        comment = sentence(self._comments.get(place, ""))
        text = f"### {outer}{enum.name}\n\n" + (f"{comment}\n\n" if comment else "")
        return text + (table(("number", "value", "meaning"), rows) if any(r[2] for r in rows) else _values(rows))

    def _meaning(self, message: DescriptorProto, field: FieldDescriptorProto, place: Place) -> str:
        comment = sentence(self._comments.get(place, ""))
        if not field.HasField("oneof_index"):
            return comment
        return f"One of {message.oneof_decl[field.oneof_index].name}. {comment}".strip()

    def _type(self, field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> str:
        entry = maps.get(field.type_name.rpartition(".")[2])
        if entry is not None:
            key, value = (self._plain(part) for part in entry.field)
            return f"map of {key} to {value}"
        plain = self._plain(field)
        return f"list of {plain}" if field.label == FieldDescriptorProto.LABEL_REPEATED else plain

    def _plain(self, field: FieldDescriptorProto) -> str:
        if field.type_name:
            return self._short(field.type_name)
        return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()

    def _short(self, name: str) -> str:
        """A link to this page's own messages; the bare name of others."""
        if not name.startswith(self._package):
            return name.removeprefix(".google.protobuf.").removeprefix(".")
        local = name.removeprefix(self._package)
        return f"[{local}](#{local.replace('.', '').lower()})"


def _values(rows: Iterable[tuple[str, ...]]) -> str:
    return table(("number", "value"), [row[:2] for row in rows]) or NOTHING
