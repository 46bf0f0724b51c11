"""An ordinary deployment of a flow, as a user writes it. It knows nothing of prefect-docker-attest."""

import os

from prefect import flow
from prefect.docker import DockerImage


@flow(log_prints=True)
def hello(name: str = "world") -> None:
    print(f"Hello, {name}!")


if __name__ == "__main__":
    hello.deploy(
        name="hello",
        work_pool_name="demo",
        image=DockerImage(
            name=os.environ["IMAGE_NAME"],
            tag=os.environ["IMAGE_TAG"],
            dockerfile="Dockerfile",
            platform=os.environ["IMAGE_PLATFORM"],
        ),
        print_next_steps=False,
    )
