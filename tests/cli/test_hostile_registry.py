"""`inspect` with broken or hostile registries: it ends with JSON and less than 300 MB of memory."""

from __future__ import annotations

import gzip
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from prefect_docker_attest.images import inspections
from prefect_docker_attest.images.inspections import inspect_images
from prefect_docker_attest.terminal import Bars
from support.hostile import Answer, HostileServer, endless, gzip_bomb, hostile_server
from support.pushing import CONFIG, LAYER, MANIFEST, descriptor, digest, tar_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.shipped import Result, Run

INDEX = "application/vnd.oci.image.index.v1+json"
MEMORY = 300 << 20
DIGEST = digest(b"")
ESCAPE = "\x1b[31m\x1b]0;owned\x07\x9b\u202e\n"


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as server:
        server.image("good", tar_layer("good"))
        yield server


def inspected(run: Run, server: HostileServer, *flags: str, name: str = "x:bad", **environment: str | None) -> Result:
    """Inspect a bad and a good image, and check that the command ends as it always must."""
    result = run("inspect", f"{server.address}/{name}", f"{server.address}/x:good", "--json", *flags, **environment)

    assert result.peak < MEMORY
    assert [image["reference"] for image in result.json["images"]][-1].endswith("x:good")
    assert "bug" not in result.err
    assert "\x1b" not in result.out + result.err
    return result


def refused(result: Result) -> str:
    """Return the reason why the bad image could not be inspected."""
    assert (result.code, result.json["ok"], len(result.json["errors"])) == (3, False, 1)
    return str(result.json["errors"][0]["error"])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.999:5999/x",
        "256.256.256.256/x",
        "127.0.0.1:99999/x",
        "[::g]:5000/x",
        "[1:2]/x",
        "a..b:5000/x",
        f"{'a' * 64}.example:5000/x",
        "127.0.0.1:1/x",
        "xn--a:1/x",
        "",
        "\x1b[31m",
        "x" * 10_000,
    ],
)
def test_an_invalid_address(run: Run, server: HostileServer, address: str) -> None:
    result = run("inspect", address, f"{server.address}/x:good", "--json")

    assert refused(result)
    assert "\x1b" not in result.err
    assert len(result.json["images"]) == 1


def nested_indexes(server: HostileServer, number: int) -> None:
    entry = server.image("leaf", tar_layer("leaf"))
    for _ in range(number):
        entry = server.serve("bad", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, INDEX)


def index(*entries: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}


ENTRY = {"mediaType": MANIFEST, "digest": DIGEST, "size": 1}

DOCUMENTS: dict[str, tuple[Any, str, str]] = {
    "nested objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, MANIFEST, "nested too deeply"),
    "nested lists": (b"[" * 100_000, INDEX, "nested too deeply"),
    "no JSON": (b"<html>sign in</html>", MANIFEST, "is not JSON"),
    "HTML": (b"<html>sign in</html>", "text/html", "is not a container image: it is a text/html"),
    "empty": (b"", MANIFEST, "is not JSON"),
    "no UTF-8": (b'{"layers": "\xff\xfe"}', MANIFEST, "layers must be a list, not"),
    "null": (b"null", MANIFEST, "must be a JSON object, not null"),
    "a list": (b"[]", INDEX, "must be a JSON object, not a list"),
    "a number of 5,000 digits": (b'{"layers": ' + b"1" * 5000 + b"}", MANIFEST, "layers must be a list"),
    "300,000 values": (b'{"layers": [' + b"{}," * 300_000 + b"{}]}", MANIFEST, "more than 250,000 values"),
    "more than 4 MiB": (b" " * (4 << 20) + b"{}", MANIFEST, "is longer than 4,194,304 bytes"),
    "an index without manifests": (index(), INDEX, "is an index that lists no container image"),
    "an index that is null": ({"manifests": None}, INDEX, "is an index that lists no container image"),
    "an index of one thing": ({"manifests": {}}, INDEX, "manifests must be a list, not an object"),
    "20,000 entries": (index(*[{**ENTRY, "mediaType": "x"}] * 20_000), INDEX, "list more than 1,000 manifests"),
    "manifest and index": ({**index(), "config": {}}, INDEX, "also has the member 'config'"),
    "index and manifest": ({"manifests": [], "layers": []}, MANIFEST, "also has the member 'manifests'"),
    "no layers": ({"config": {**ENTRY, "mediaType": "x"}}, MANIFEST, "it is a x."),
    "a digest that climbs": (
        index({**ENTRY, "digest": "../../../../etc/passwd"}),
        *(INDEX, 'digest must be sha256:<64 hexadecimal digits>, not "../../../../etc/passwd"'),
    ),
    "a digest with a query": (index({**ENTRY, "digest": f"{DIGEST}?x=y"}), INDEX, "digest must be"),
    "a digest in capitals": (index({**ENTRY, "digest": DIGEST.upper()}), INDEX, "digest must be"),
    "sha512": (index({**ENTRY, "digest": "sha512:" + "0" * 128}), INDEX, "digest must be"),
    "no digest": (index({"mediaType": MANIFEST, "size": 1}), INDEX, "digest must be sha256:<64 hexadecimal digits>"),
    "a byte order mark": (b'\xef\xbb\xbf{"layers": []}', MANIFEST, "is not JSON"),
    "a media type of an index": ({"mediaType": INDEX, "layers": []}, MANIFEST, "has the media type"),
    "a manifest of Docker 1.9": ({"fsLayers": []}, MANIFEST, "images of Docker before 1.10 are not supported"),
    "a negative size": (index({**ENTRY, "size": -1}), INDEX, "size must be a number of bytes, not -1"),
    "a size that is true": (
        index({**ENTRY, "size": True}),
        INDEX,
        "size must be a number without a fraction, not true",
    ),
    "a size that is NaN": (index({**ENTRY, "size": float("nan")}), INDEX, "is not JSON: NaN is no number"),
    "a long media type": (index({**ENTRY, "mediaType": "x" * 1000}), INDEX, "mediaType must be a media type"),
    "a media type that is none": (index({**ENTRY, "mediaType": []}), INDEX, "mediaType must be a string, not a list"),
    "a platform of numbers": (index({**ENTRY, "platform": {"os": 1}}), INDEX, "os must be a string, not 1"),
    "annotations that are none": (index({**ENTRY, "annotations": "x"}), INDEX, "annotations must be an object"),
    "escapes in a media type": (b"x", f"text/{ESCAPE}".encode().decode("latin-1"), "is not a container image"),
    "escapes in a value": (index({**ENTRY, "digest": ESCAPE}), INDEX, "digest must be"),
    "surrogates": (index({**ENTRY, "digest": "\ud800"}), INDEX, "digest must be"),
}


@pytest.mark.parametrize(("document", "media_type", "reason"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_an_invalid_document(run: Run, server: HostileServer, document: Any, media_type: str, reason: str) -> None:
    server.serve("bad", document, media_type)

    assert reason in refused(inspected(run, server))
    assert not [path for path, _ in server.asked if ".." in path or "passwd" in path]


CONFIGS: dict[str, tuple[bytes, str]] = {
    "no object": (b"[]", "its config must be a JSON object, not a list"),
    "no JSON": (b"x", "its config is not JSON"),
    "diff_ids of numbers": (b'{"rootfs": {"diff_ids": [1]}}', "diff_ids[0] must be a string, not 1"),
    "diff_ids in a string": (b'{"rootfs": "x"}', "rootfs must be an object"),
    "architecture of a list": (b'{"architecture": []}', "architecture must be a string, not a list"),
    "nested": (b'{"a":' * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize(("config", "reason"), CONFIGS.values(), ids=CONFIGS)
def test_an_invalid_config(run: Run, server: HostileServer, config: bytes, reason: str) -> None:
    server.image("bad", tar_layer("x"), config=server.blob(config, CONFIG))

    assert reason in refused(inspected(run, server))


def test_nested_indexes_are_read_up_to_a_limit(run: Run, server: HostileServer) -> None:
    nested_indexes(server, 8)
    assert inspected(run, server).code == 0

    nested_indexes(server, 1200)
    assert "more than 8 nested indexes" in refused(inspected(run, server))


def test_too_many_layers_in_total(run: Run, server: HostileServer) -> None:
    image = server.image("leaf", tar_layer("x"), layers=[server.blob(tar_layer("x"))] * 1000)
    server.serve("bad", index(*[image] * 11), INDEX)

    assert "list more than 10,000 layers" in refused(inspected(run, server))


def test_too_long_documents_in_total(run: Run, server: HostileServer) -> None:
    entries = [server.image(f"i{number}", tar_layer("x"), pad=" " * 3_000_000 + str(number)) for number in range(3)]
    server.serve("bad", index(*entries), INDEX)

    assert "have more than 8,388,608 bytes in total" in refused(inspected(run, server))


def test_ten_of_the_largest_images_at_once(run: Run, server: HostileServer) -> None:
    layer = server.blob(tar_layer("x"))
    for number in range(10):
        entries = [{**layer, "annotations": {"a": str(n * 10 + number)}} for n in range(9_000)]
        server.image(f"i{number}", tar_layer("x"), layers=entries, pad="x" * 2_000_000)
    result = run("inspect", "--json", *[f"{server.address}/x:i{number}" for number in range(10)])

    assert (result.code, len(result.json["images"])) == (0, 10)
    assert result.peak < MEMORY


def test_an_index_of_attestations_without_an_image(run: Run, server: HostileServer) -> None:
    annotations = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": ESCAPE}
    server.serve("bad", index({**server.image("leaf", tar_layer("x")), "annotations": annotations}), INDEX)

    assert "is an index that lists no container image" in refused(inspected(run, server))


def test_text_from_a_registry_cannot_control_the_terminal(run: Run, server: HostileServer) -> None:
    annotations = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": ESCAPE}
    layer = {**server.blob(tar_layer("x")), "annotations": {"in-toto.io/predicate-type": f"[red]{ESCAPE}"}}
    attestation = {**server.image("a", tar_layer("a"), layers=[layer]), "annotations": annotations}
    image = {**server.image("i", tar_layer("i")), "platform": {"os": f"[/]{ESCAPE}", "architecture": "[bold]"}}
    server.serve("bad", index(image, attestation, {**ENTRY, "mediaType": f"x/{ESCAPE}"}), INDEX)
    server.answers["x/manifests/gone"] = Answer(json.dumps({"errors": [{"message": ESCAPE}]}).encode(), 404)
    result = run("inspect", f"{server.address}/x:bad", f"{server.address}/x:gone")

    assert result.code == 3
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*result.out, *result.err}
    assert r"[/]\x1b[31m" in result.out
    assert r"\u202e\n" in result.out  # a line break is escaped too
    assert r"\x1b[31m" in result.err


ANSWERS: dict[str, tuple[Callable[[], Answer], str]] = {
    "a manifest without end": (
        lambda: Answer(endless(), headers={"Content-Type": MANIFEST}),
        "is longer than 4,194,304 bytes",
    ),
    "500 MB of gzip": (
        lambda: Answer(gzip_bomb(500 << 20), headers={"Content-Type": MANIFEST, "Content-Encoding": "gzip"}),
        "is longer than 4,194,304 bytes",
    ),
    "gzip that is none": (lambda: Answer(b"x" * 99, headers={"Content-Encoding": "gzip"}), "cannot be decompressed"),
    "gzip that is cut off": (
        lambda: Answer(gzip.compress(b"{}")[:-9], headers={"Content-Encoding": "gzip"}),
        "cannot be decompressed: the data is cut off",
    ),
    "another encoding": (lambda: Answer(b"x", headers={"Content-Encoding": ESCAPE[:5]}), "which is not supported"),
    "an error without end": (lambda: Answer(endless(), 404), "answers 404 Not Found"),
    "500 without end": (lambda: Answer(endless(b'{"errors":['), 500), "answers 500 Internal Server Error"),
    "401 without end": (lambda: Answer(endless(), 401), "answers 401 Unauthorized"),
    "an error of numbers": (lambda: Answer(b'{"errors": [{"message": 5}]}', 403), "answers 403 Forbidden (5)"),
    "a nested error": (lambda: Answer(b'{"a":' * 10_000, 500), "answers 500 Internal Server Error for"),
    "a long error": (
        lambda: Answer(json.dumps({"errors": [{"message": "long " * 9000}]}).encode(), 500),
        "answers 500 Internal Server Error (long long",
    ),
    "no HTTP": (lambda: Answer(raw=b"\x1b[31mSSH-2.0-OpenSSH\r\n\r\n"), "cannot be read at"),
    "nothing": (lambda: Answer(raw=b""), "cannot be read at"),
    "headers without end": (
        lambda: Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"X-Y: " + b"z" * (1 << 20) + b"\r\n\r\n"),
        "cannot be read at",
    ),
    "a chunk of no length": (
        lambda: Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        "cannot be read at",
    ),
    "less than announced": (lambda: Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"), "cannot be read at"),
    "a redirect to itself": (lambda: Answer(b"", 307, {"Location": "/v2/x/manifests/bad"}), "more than 10 redirects"),
    "redirects without end": (
        lambda: Answer(endless(), 307, {"Location": "/v2/x/manifests/bad"}),
        "more than 10 redirects",
    ),
    "a redirect to a file": (lambda: Answer(b"", 302, {"Location": "file:///etc/passwd"}), "cannot be read at"),
    "a redirect to nowhere": (lambda: Answer(b"", 302, {"Location": "http://[::/"}), "cannot be read at"),
    "a redirect to none": (lambda: Answer(b"", 302, {"Location": "http://127.0.0.999/"}), "cannot be read at"),
    "a redirect without a place": (lambda: Answer(b"", 302), "answers 302 Found"),
    "nothing to show": (lambda: Answer(b"", 204), "answers 204 No Content"),
}


@pytest.mark.parametrize(("answer", "reason"), ANSWERS.values(), ids=ANSWERS)
def test_an_invalid_response(run: Run, server: HostileServer, answer: Callable[[], Answer], reason: str) -> None:
    server.answers["x/manifests/bad"] = answer()
    message = refused(inspected(run, server))

    assert reason in message
    assert len(message) < 1000


def test_a_manifest_that_has_another_digest(run: Run, server: HostileServer) -> None:
    server.answers[f"x/manifests/{DIGEST}"] = server.answers["x/manifests/good"]

    assert "has the wrong digest" in refused(inspected(run, server, name=f"x@{DIGEST}"))


def test_a_manifest_whose_media_type_only_the_document_names(run: Run, server: HostileServer) -> None:
    good = server.answers["x/manifests/good"]
    server.answers["x/manifests/bad"] = Answer(good.body, headers={"Content-Type": "application/json"})
    result = inspected(run, server)

    found = result.json["images"][0]
    assert (result.code, found["media_type"], found["state"]) == (0, MANIFEST, "unverifiable")
    assert "the registry calls manifest sha256:" in found["images"][0]["detail"]


LAYERS: dict[str, tuple[Callable[[], Answer], str, str]] = {
    "without end": (lambda: Answer(endless(b"\x1f\x8b" * 1000)), "corrupt", "is longer than its descriptor says"),
    "gone": (lambda: Answer(b"{}", 404), "corrupt", "the registry does not have it"),
    "empty": (lambda: Answer(b""), "corrupt", "its blob has the digest sha256:"),
    "cut off": (lambda: Answer(tar_layer("layer")[:-9]), "corrupt", "the data is cut off"),
    "another": (lambda: Answer(tar_layer("other")), "corrupt", "its blob has the digest sha256:"),
}


@pytest.mark.parametrize(("answer", "state", "detail"), LAYERS.values(), ids=LAYERS)
def test_an_invalid_layer(
    run: Run, server: HostileServer, answer: Callable[[], Answer], state: str, detail: str
) -> None:
    layer = tar_layer("layer")
    server.image("bad", layer)
    server.answers[f"x/blobs/{digest(layer)}"] = answer()
    result = inspected(run, server, "--verify-layers")

    (bad, _) = result.json["images"]
    assert (result.code, bad["state"]) == (0, state)
    assert detail in bad["images"][0]["detail"]


def test_a_layer_in_pieces_of_one_byte(run: Run, server: HostileServer) -> None:
    layer = tar_layer("layer")
    server.image("bad", layer)
    server.answers[f"x/blobs/{digest(layer)}"] = Answer([layer[at : at + 1] for at in range(len(layer))])
    result = inspected(run, server, "--fail-on-corruption")

    assert (result.code, result.json["images"][0]["state"]) == (0, "sound")


def test_a_layer_of_zeros_is_decompressed_with_limited_memory(run: Run, server: HostileServer) -> None:
    server.image("bad", tar_layer("zeros", 1 << 30, 1))
    result = inspected(run, server, "--fail-on-corruption")

    assert (result.code, result.json["images"][0]["state"]) == (0, "sound")
    assert result.peak < 150 << 20


def test_a_layer_whose_connection_breaks_is_an_error(run: Run, server: HostileServer) -> None:
    layer = tar_layer("layer")
    server.image("bad", layer)
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + layer[:10]
    server.answers[f"x/blobs/{digest(layer)}"] = Answer(raw=raw)

    assert "cannot be read at" in refused(inspected(run, server, "--verify-layers"))


def test_shared_documents_and_layers_are_read_once(run: Run, server: HostileServer) -> None:
    layer = tar_layer("shared")
    image = server.image("bad", layer)
    server.serve("bad", index(*[image] * 500), INDEX)
    result = inspected(run, server, "--verify-layers")

    assert (result.code, len(result.json["images"][0]["images"])) == (0, 500)
    paths = [path for path, _ in server.asked]
    assert paths.count(f"x/blobs/{digest(layer)}") == 1
    assert paths.count(f"x/manifests/{image['digest']}") == 1


def test_a_config_of_two_gigabytes_is_not_read(run: Run, server: HostileServer) -> None:
    config = {**descriptor(CONFIG, b"{}"), "size": 2 << 30}
    server.image("bad", tar_layer("x"), config=config)
    server.answers[f"x/blobs/{config['digest']}"] = Answer(endless())

    assert "is longer than 4,194,304 bytes" in refused(inspected(run, server))


def test_a_registry_that_never_ends_its_response_times_out(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def header() -> Iterator[bytes]:
        while True:
            yield b"x"
            time.sleep(0.05)

    server.answers["x/manifests/bad"] = Answer(header(), headers={"Content-Type": MANIFEST})
    monkeypatch.setattr(inspections, "_IDLE_LIMIT", 4)
    references = [f"{server.address}/x:{tag}" for tag in ("good", "bad", "good")]
    results = list(inspect_images(references, Bars().meter, engine=False, verify_layers=False))

    assert [result.error for result in results] == ["", "There was no answer for 4 seconds.", ""]


def test_ten_images_are_inspected_at_once_and_shown_in_order(run: Run, server: HostileServer) -> None:
    names = [f"{server.address}/x:{number}" for number in range(10)]
    for number in range(10):
        server.image(str(number), gzip.compress(b"x" * number), layers=[server.blob(b"x", LAYER)])
    result = run("inspect", "--json", *names)

    assert [image["reference"] for image in result.json["images"]] == names
