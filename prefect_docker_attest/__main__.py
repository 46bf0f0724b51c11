"""Runs the command ``prefect-docker-attest`` as ``python -m prefect_docker_attest``."""

from prefect_docker_attest.cli import main

main(prog_name="prefect-docker-attest")
