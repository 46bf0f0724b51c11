"""Build arguments: values in the environment, except for names that other programs read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_docker_attest.options.build_args import is_reserved, prepare

PARENT = {"PATH": "/usr/bin", "HTTP_PROXY": "http://user:pass@proxy", "CI": "true", "DOCKER_HOST": "unix:///d.sock"}

RESERVED = [
    "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "BUILDX_BUILDER", "BUILDKIT_HOST", "KUBERNETES_SERVICE_HOST",
    "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AZURE_CLIENT_SECRET", "GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG",
    "PATH", "HOME", "TMPDIR", "LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "GODEBUG", "GOTRACEBACK",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "FTP_PROXY", "SSL_CERT_FILE", "KUBECONFIG", "SSH_AUTH_SOCK",
    "GIT_SSH_COMMAND", "XDG_CONFIG_HOME", "BASH_ENV", "ENV", "IFS", "PYTHONPATH", "PYTHONSTARTUP", "NODE_OPTIONS",
    "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "ZDOTDIR", "OTEL_EXPORTER_OTLP_ENDPOINT", "SOURCE_DATE_EPOCH",
]  # fmt: skip


@pytest.mark.parametrize("change", [str.upper, str.lower, str.title])
@pytest.mark.parametrize("name", RESERVED)
def test_reserved_names_are_not_put_into_the_environment(name: str, change: type[str]) -> None:
    name = change(name)
    prepared = prepare({name: "value"}, {})
    assert prepared.flags == (f"{name}=value",)
    assert prepared.environment == {}


@pytest.mark.parametrize(
    "name", ["VERSION", "MY_TOKEN", "pip_index", "PREFECT_API_KEY", "GPU", "A B\nC", "é", "MYPATH"]
)
def test_values_of_other_names_are_not_on_the_command_line(name: str) -> None:
    prepared = prepare({name: "secret value"}, PARENT)
    assert prepared.flags == (name,)
    assert prepared.environment == {name: "secret value"}
    assert prepared.visible_credentials == ()


def test_a_name_that_the_child_inherits_with_another_value_is_not_replaced_there() -> None:
    prepared = prepare({"CI": "false"}, PARENT)
    assert prepared.flags == ("CI=false",)
    assert prepared.environment == {}


def test_an_inherited_value_is_not_on_the_command_line() -> None:
    # The address of a proxy can contain a password. The caller can have cloud credentials.
    prepared = prepare({"HTTP_PROXY": PARENT["HTTP_PROXY"], "CI": "true"}, PARENT)
    assert prepared.flags == ("HTTP_PROXY", "CI")
    assert prepared.environment == {}
    assert prepared.visible_credentials == ()


def test_values_that_the_docker_cli_may_change_are_on_the_command_line() -> None:
    assert prepare({"DOCKER_HOST": PARENT["DOCKER_HOST"]}, PARENT).flags == ("DOCKER_HOST=unix:///d.sock",)


def test_credentials_on_the_command_line_are_named() -> None:
    given = {
        "AWS_SECRET_ACCESS_KEY": "x",
        "aws_session_token": "x",
        "AWS_REGION": "x",
        "GIT_AUTHOR_NAME": "x",
        "TOKEN": "x",
    }
    assert prepare(given, {}).visible_credentials == ("AWS_SECRET_ACCESS_KEY", "aws_session_token")
    assert prepare({"TOKEN": "x"}, {"TOKEN": "y"}).visible_credentials == ("TOKEN",)


def test_a_password_in_the_address_of_a_proxy_is_named() -> None:
    given = {"HTTP_PROXY": "http://user:password@proxy:1", "https_proxy": "http://proxy:1"}
    assert prepare(given, {}).visible_credentials == ("HTTP_PROXY",)


NAMES = st.one_of(
    st.sampled_from(RESERVED).map(lambda name: name.lower()) | st.sampled_from([*RESERVED, *PARENT]),
    st.text(min_size=1).filter(lambda name: "=" not in name and "\0" not in name),
)
VALUES = st.one_of(st.sampled_from([*PARENT.values(), ""]), st.text().filter(lambda value: "\0" not in value))


@settings(deadline=None)  # a busy machine is no error
@given(st.dictionaries(NAMES, VALUES))
def test_buildx_reads_the_values_and_other_programs_see_no_change(build_args: dict[str, str]) -> None:
    prepared = prepare(build_args, PARENT)
    child = {**PARENT, **prepared.environment}
    # buildx (util/buildflags) reads a name without "=" from the environment.
    read = {
        name: value if equals else child[name]
        for name, equals, value in (flag.partition("=") for flag in prepared.flags)
    }
    assert read == build_args
    assert {name: child[name] for name in PARENT} == PARENT
    assert not [name for name in prepared.environment if is_reserved(name)]
