"""With the setting on, buildx builds, even with import hooks and wrappers of other packages."""

from __future__ import annotations

import textwrap
from importlib.util import find_spec
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from engines.existing import PREFIX
from support.environment import SETTING, Environment, write

if TYPE_CHECKING:
    from engines.private import Engine, Registry

ON = {SETTING: "true"}

# Code that a program runs before it builds with Prefect. The package is installed.
HOOKS = {
    "nothing": "",
    "typeguard on Prefect, before it": """
        import typeguard
        typeguard.install_import_hook(["prefect.docker", "prefect.utilities.dockerutils"])
        import prefect
    """,
    "typeguard on Prefect, after it": """
        import prefect, typeguard
        typeguard.install_import_hook(["prefect.docker", "prefect.utilities.dockerutils"])
    """,
    "typeguard on docker-py, before Prefect": """
        import typeguard
        typeguard.install_import_hook("docker")
        import prefect
    """,
    "typeguard on docker-py, after Prefect": """
        import prefect, typeguard
        typeguard.install_import_hook("docker")
    """,
    "typeguard on docker-py, whose dependencies are loaded": """
        import docker, sys
        for name in [name for name in sys.modules if name.partition(".")[0] == "docker"]:
            del sys.modules[name]
        import prefect, typeguard
        typeguard.install_import_hook("docker")
    """,
    "typeguard on docker-py, imported before Prefect": """
        import typeguard
        typeguard.install_import_hook("docker")
        import docker, prefect
    """,
    "jaxtyping on Prefect, before it": """
        import jaxtyping
        jaxtyping.install_import_hook("prefect", None)
        import prefect
    """,
    "jaxtyping on Prefect and docker-py, after Prefect": """
        import prefect, jaxtyping
        jaxtyping.install_import_hook(["prefect", "docker"], None)
    """,
    "jaxtyping on docker-py, before Prefect": """
        import jaxtyping
        jaxtyping.install_import_hook("docker", None)
        import prefect
    """,
    "beartype on Prefect and docker-py, before them": """
        from beartype import BeartypeConf
        from beartype.claw import beartype_packages
        packages = "docker", "prefect.utilities.dockerutils", "prefect.docker"
        beartype_packages(packages, conf=BeartypeConf(violation_type=UserWarning))
        import prefect
    """,
    "beartype on docker-py, after Prefect": """
        import prefect
        from beartype.claw import beartype_package
        beartype_package("docker")
    """,
    "another loader of dockerutils": """
        import importlib.util, sys
        import prefect.utilities
        found = importlib.util.find_spec("prefect.utilities.dockerutils")
        spec = importlib.util.spec_from_file_location(found.name, found.origin)
        module = importlib.util.module_from_spec(spec)
        sys.modules[found.name] = prefect.utilities.dockerutils = module
        spec.loader.exec_module(module)
    """,
    "a loader with load_module only": """
        import importlib.machinery, importlib.util, sys, warnings
        warnings.simplefilter("ignore")

        class Loader:
            def __init__(self, path):
                self.path = path

            def load_module(self, name):
                module = type(sys)(name)
                module.__file__, module.__package__ = self.path, name.rpartition(".")[0]
                sys.modules[name] = module
                with open(self.path) as file:
                    exec(compile(file.read(), self.path, "exec"), vars(module))
                return module

        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name in ("prefect.utilities.dockerutils", "docker.api.client", "docker.api.build"):
                    found = importlib.machinery.PathFinder.find_spec(name, path)
                    return importlib.machinery.ModuleSpec(name, Loader(found.origin), origin=found.origin)

        import prefect
        sys.meta_path.insert(0, Finder())
    """,
    "Prefect's module moved, its old address re-exports": """
        import importlib.util, sys
        import prefect.utilities
        old = "prefect.utilities.dockerutils"
        found = importlib.util.find_spec(old)
        spec = importlib.util.spec_from_file_location("prefect._internal.dockerutils", found.origin)
        moved = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = moved
        spec.loader.exec_module(moved)
        sys.modules[old] = prefect.utilities.dockerutils = type(sys)(old)
        vars(sys.modules[old]).update({name: value for name, value in vars(moved).items() if name[0] != "_"})
    """,
    "dockerutils deleted and imported again": """
        import sys
        import prefect.utilities.dockerutils
        del sys.modules["prefect.utilities.dockerutils"], prefect.utilities.dockerutils
    """,
    "dockerutils reloaded": """
        import importlib
        import prefect.utilities.dockerutils
        importlib.reload(prefect.utilities.dockerutils)
    """,
    "docker-py wrapped by a tracer, after Prefect": """
        import prefect, docker
        def traced(build):
            def wrapper(*args, **kwargs):
                return build(*args, **kwargs)
            return wrapper
        docker.APIClient.build = traced(docker.APIClient.build)
    """,
    "docker-py wrapped by a tracer, before Prefect": """
        import docker.api.build
        def traced(build):
            def wrapper(*args, **kwargs):
                return build(*args, **kwargs)
            return wrapper
        docker.api.build.BuildApiMixin.build = traced(docker.api.build.BuildApiMixin.build)
    """,
    "a finder that is removed again": """
        import sys
        class Finder:
            def find_spec(self, *_):
                return None
        sys.meta_path.insert(0, Finder())
        import prefect, docker
        assert isinstance(sys.meta_path.pop(0), Finder)
    """,
}

# The same, but Python has not read the package's start-up file.
BY_HAND = {
    "the start-up file is read after Prefect": """
        import site
        import prefect.utilities.dockerutils
        site.addsitedir({site_packages!r})
    """,
    "imported by hand, docker_client bound before": """
        import functools, sys
        import prefect.utilities.dockerutils
        from prefect.utilities.dockerutils import docker_client
        class Bound:
            client = staticmethod(docker_client)
        table, partial = {{"client": docker_client}}, functools.partial(docker_client)
        def default(client=docker_client):
            return client
        sys.path.append({site_packages!r})
        import prefect_docker_attest
        for client in (Bound.client, table["client"], partial, default()):
            with client() as opened:
                assert "#1 [internal]" in str(list(opened.api.build(path=".", decode=True)))
    """,
    "imported by hand, docker-py loaded": """
        import sys
        import docker, prefect.utilities.dockerutils
        sys.path.append({site_packages!r})
        import prefect_docker_attest
    """,
}

BUILD = """
import io, pathlib
from prefect.utilities.dockerutils import build_image, docker_client
from prefect.docker import DockerImage
streams = [io.StringIO() for _ in range(2)]
build_image(pathlib.Path(), stream_progress_to=streams[0])
DockerImage({name!r}, "app", "Dockerfile", stream_progress_to=streams[1]).build()
with docker_client() as client:
    events = list(client.api.build(".", {name!r}, decode=True))
    _, logs = client.images.build(path=".")
texts = [*(stream.getvalue() for stream in streams), str(events), str(list(logs))]
print(*("buildx" if "#1 [internal]" in text else text for text in texts))
"""
BUILDX_4_TIMES = "buildx buildx buildx buildx\n"


@pytest.fixture(autouse=True)
def _context(some_engine: Engine, from_wheel: Environment, without_us: Environment) -> None:
    assert some_engine.host
    for environment in (from_wheel, without_us):
        write(environment.project, {"Dockerfile": f"FROM scratch\nCOPY Dockerfile /\nLABEL of={uuid4()}\n"})


def build_program(prologue: str) -> str:
    return textwrap.dedent(prologue) + BUILD.format(name=f"{PREFIX}/{uuid4()}")


@pytest.mark.parametrize("prologue", HOOKS.values(), ids=HOOKS)
def test_buildx_builds(from_wheel: Environment, without_us: Environment, prologue: str) -> None:
    done = from_wheel.run("-W", "ignore", "-c", build_program(prologue), variables=ON)
    imports = "from prefect import flow; import prefect.utilities.dockerutils, docker; docker.DockerClient\n"
    if done.returncode and without_us.run("-W", "ignore", "-c", textwrap.dedent(prologue) + imports).returncode:
        # jaxtyping fails on annotations of Prefect 3.1 with CPython 3.10, and on every module with CPython 3.15, which
        # does not call `load_module` either.
        pytest.skip("without the package, this program cannot import Prefect or docker-py either")
    assert (done.returncode, done.stdout) == (0, BUILDX_4_TIMES), done.stderr


@pytest.mark.parametrize("prologue", BY_HAND.values(), ids=BY_HAND)
def test_buildx_builds_if_the_package_is_imported_late(
    from_wheel: Environment, without_us: Environment, prologue: str
) -> None:
    program = build_program(prologue.format(site_packages=str(from_wheel.package.parent)))
    done = without_us.run("-W", "ignore", "-c", program, variables=ON)
    assert (done.returncode, done.stdout) == (0, BUILDX_4_TIMES), done.stderr


def test_buildx_builds_if_pytest_rewrites_prefect(from_wheel: Environment) -> None:
    test = (
        f"import pytest\ndef test_build(capsys):\n{textwrap.indent(BUILD.format(name=f'{PREFIX}/{uuid4()}'), '    ')}\n"
    )
    test += f"    assert capsys.readouterr().out == {BUILDX_4_TIMES!r}\n"
    conftest = "import pytest\npytest.register_assert_rewrite('prefect')\nimport prefect\n"
    write(from_wheel.project, {"test_it.py": test, "conftest.py": conftest, "pytest.ini": "[pytest]\n"})
    done = from_wheel.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py", variables=ON)
    assert done.returncode == 0, done.stdout


def test_without_the_package_the_classic_builder_builds(without_us: Environment) -> None:
    # This shows that the other tests test something.
    done = without_us.run("-W", "ignore", "-c", build_program(HOOKS["nothing"]), variables=ON)
    assert done.returncode == 0, done.stderr
    assert "Step 1/3 : FROM scratch" in done.stdout
    assert "buildx" not in done.stdout


WHALES = {
    "nothing": "",
    "typeguard on Prefect's module": """
        import prefect, typeguard
        typeguard.install_import_hook("prefect._internal.buildx")
    """,
    "typeguard on python-on-whales": """
        import prefect, typeguard
        typeguard.install_import_hook("python_on_whales.components.buildx")
    """,
    "python-on-whales loaded before": """
        import python_on_whales
        build = python_on_whales.docker.buildx.build
    """,
    "the module's function bound before": """
        import prefect
        import importlib.util
        names = ("prefect._internal.buildx", "prefect.docker._buildx")
        name = next(name for name in names if importlib.util.find_spec(name))
        once = importlib.import_module(name)._buildx_build_once
    """,
}


@pytest.mark.skipif(
    not any(find_spec(name) for name in ("prefect._internal.buildx", "prefect.docker._buildx")),
    reason="this Prefect has no build_backend",
)
@pytest.mark.parametrize("prologue", WHALES.values(), ids=WHALES)
def test_no_attestation_is_pushed_by_build_backend(from_wheel: Environment, registry: Registry, prologue: str) -> None:
    from engines.published import Published

    name = f"{registry.address}/never-classic-{uuid4()}"
    program = f"""
from prefect.docker import DockerImage
for tag, push in (("pushed", False), ("during", True)):
    image = DockerImage({name!r}, tag, "Dockerfile", None, build_backend="buildx", push=push)
    image.build()
    image.push()
"""
    done = from_wheel.run("-W", "ignore", "-c", textwrap.dedent(prologue) + program, variables=ON)
    assert done.returncode == 0, done.stderr
    assert all(Published(f"{name}:{tag}").is_one_manifest for tag in ("pushed", "during"))
