"""Checks the entries of build caches. Pure.

Settings reach the command line, ``prefect config view`` and the environments of flow runs. So an entry of a setting is
refused if it can hold a credential: by the names of its attributes, and by the form of their values.
"""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from docker import utils

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.images.reference import Reference
from prefect_docker_attest.names import variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prefect_docker_attest.platforms import Platform

_OF_EXPORTS = frozenset("mode ignore-error".split())
_OF_IMAGES = frozenset("oci-mediatypes image-manifest compression compression-level force-compression".split())
_OF_BUCKETS = frozenset("name prefix blobs_prefix manifests_prefix".split())
# The attributes that BuildKit and buildx read (moby/buildkit, cache/remotecache), without credentials.
_ATTRIBUTES = {
    "registry": frozenset(("ref", "registry.insecure")) | _OF_IMAGES,
    "inline": frozenset[str](),
    "local": frozenset(("src", "dest", "tag", "digest")) | _OF_IMAGES,
    "gha": frozenset("scope url url_v2 version timeout repository".split()),
    "s3": frozenset(
        "bucket region endpoint_url touch_refresh use_path_style upload_parallelism disable_accept_encoding retry_mode "
        "retry_max_attempts".split()
    )
    | _OF_BUCKETS,
    "azblob": frozenset("account_url account_name container".split()) | _OF_BUCKETS,
}
_ONLY_WRITTEN = ("inline",)
_ENTRY = re.compile(r'(?:[^\s"]|"[^"]*")+')
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_CREDENTIAL = re.compile(
    r"secret|token|passw|pwd|credential|signature|account_?key|api_?key|access_?key|^(sig|auth|key|pass)$",
    re.IGNORECASE,
)
# Before an "@" that is not the start of a digest. A query can hold a credential; "%3D" is an escaped "=".
_USER_INFORMATION = re.compile(r"[^\s,=/]@(?!sha(?:256|384|512):)")
_QUERY = re.compile(r"\?|%3[dD]|%3[fF]")
_ADDRESS = re.compile(r"ref|url|\w+_url|url_\w+")  # attributes with an address

_OMIT_CREDENTIAL = (
    "Omit it. buildx uses the credentials of `docker login` for registries, and variables such as "
    "AWS_SECRET_ACCESS_KEY and ACTIONS_RUNTIME_TOKEN for other caches."
)


def placeholders(image: str, platforms: Sequence[Platform]) -> dict[str, str]:
    """Return the values of the placeholders in cache entries; ``""`` for a value that the build does not have.

    Args:
        image: ``registry/repository:tag``
        platforms: platforms of the image
    """
    repository, tag = utils.parse_repository_tag(image) if image else ("", "")
    # A tag cannot contain a slash.
    platform = "-".join(map(str, platforms)).replace("/", "-")
    return {"image": repository, "tag": "latest" if tag is None else tag, "platform": platform}


def entries_of_setting(setting: str, value: str, texts: Mapping[str, str]) -> tuple[str, ...]:
    """Check the cache entries of a setting, and replace their placeholders.

    Args:
        setting: ``cache_from`` or ``cache_to``
        value: value of the setting
        texts: values of the placeholders (see `placeholders`)

    Raises:
        OptionError: an entry is wrong, or can contain a credential
    """
    name = variable(setting)
    entries = _ENTRY.findall(value)
    # Credentials of all entries are checked first, because the messages of other errors show an entry.
    parsed = list(map(entry_fields, entries))
    if not all(parsed):  # of another form, so that each word can be the name of an attribute
        parsed = [dict.fromkeys(re.findall(r"([\w-]+)['\"]?\s*[=:]", value), "") | {"ref": value}]
    for fields in parsed:
        _refuse_credentials(name, fields or {})
    return tuple(_complete(name, entry, setting, texts) for entry in entries)


def _refuse_credentials(name: str, fields: Mapping[str, str]) -> None:
    addresses = [value for key, value in fields.items() if _ADDRESS.fullmatch(key)]
    if credential := next(filter(_CREDENTIAL.search, fields), ""):
        reason = f"must not contain the credential {credential}"
    elif any(map(_USER_INFORMATION.search, addresses)):
        reason = "must not contain a user or a credential before an '@'"
    elif any(map(_QUERY.search, addresses)):
        reason = "must not contain a '?' or an escaped '=', because a query can hold a credential"
    else:
        return
    raise OptionError(name, f"{reason}: other users can see it", tip=_OMIT_CREDENTIAL)


def _complete(name: str, entry: str, setting: str, texts: Mapping[str, str]) -> str:
    fields = entry_fields(entry)
    if fields is None or "type" not in fields:
        tip = "Write for example type=registry,ref=registry.example.com/app:cache"
        raise OptionError(name, "is not a valid cache entry", entry, tip=tip)
    known = [one for one in _ATTRIBUTES if setting == "cache_to" or one not in _ONLY_WRITTEN]
    if fields["type"] not in known:  # BuildKit skips an unknown type without an error
        raise OptionError(name, f"has an unknown type; it must be one of {', '.join(known)}", entry)
    if strange := sorted(fields.keys() - _ATTRIBUTES[fields["type"]] - _OF_EXPORTS - {"type"}):
        # The value is not shown: it can be a credential.
        raise OptionError(
            name,
            f"has the attribute {strange[0]}, which a cache of type={fields['type']} does not have",
            tip="Omit it.",
        )
    for placeholder in _PLACEHOLDER.findall(entry):
        if placeholder not in texts:
            names = ", ".join(map("{{{}}}".format, texts))
            raise OptionError(name, f"has the unknown placeholder {{{placeholder}}}; known are {names}", entry)
        if not texts[placeholder]:
            missing = "platform" if placeholder == "platform" else "name"
            raise OptionError(name, f"uses {{{placeholder}}}, but the build has no {missing}", entry)
    return _PLACEHOLDER.sub(lambda match: texts[match[1]], entry)


def entry_fields(entry: str) -> dict[str, str] | None:
    """Return the attributes of a cache entry by their names; `None` for a text of another form."""
    try:
        (row,) = csv.reader([entry], strict=True)
    except (csv.Error, ValueError):
        return None
    if not all("=" in field for field in row):
        return None
    return {name.strip().lower(): value for name, _, value in (field.partition("=") for field in row)}


def with_ignored_errors(entry: str) -> str:
    """Add ``ignore-error=true`` to a cache entry, so that a build does not fail because its cache cannot be written."""
    fields = entry_fields(entry) or {}
    return entry if fields.get("type") == "inline" or "ignore-error" in fields else f"{entry},ignore-error=true"


def refuse_own_tag(option: str, entries: Iterable[str], images: Sequence[str]) -> None:
    """Refuse a cache that would be published under the tag of the image itself.

    Args:
        option: who sets the entries, by name: the option or the setting's variable
        entries: entries of ``--cache-to``
        images: names of the image

    Raises:
        OptionError: an entry has the name of the image
    """
    own = [name for image in images if (name := _parsed(image))]
    for entry in entries:
        fields = entry_fields(entry) or ({"ref": entry} if "=" not in entry else {})
        written = _parsed(fields.get("ref", "")) if fields.get("type", "registry") == "registry" else None
        if written and written in own:
            raise OptionError(
                option,
                f"writes the cache to {fields['ref']}, which is the name of the image: it would replace the image",
                tip="Use another tag, such as ref={image}:cache, or type=inline.",
            )


def _parsed(name: str) -> tuple[str, str, str | None] | None:
    try:
        reference = Reference.parse(name)
    except ImageError:
        return None
    return reference.registry, reference.repository, reference.tag
