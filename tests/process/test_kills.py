"""kill -9 of each process of the tree, under load: what goes on, what comes back, and what is never left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from support.admin import Admin, Refused, admin_of, until
from support.gateway import Gateway
from support.leaks import alive, is_free, shared_memory
from support.load import Load
from support.predict import Client, client_of
from zoo import versioned, versioned_big, write_version

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from gateway.wire.pb.inference import grpc_service_pb2 as inference_pb

pytestmark = pytest.mark.process

MODEL = "served"
CONSTANTS = {1: 10.0, 2: 20.0, 3: 30.0}
CONTROL_DOWN_SECONDS = 1.5


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    write_version(root, MODEL, 1, versioned(CONSTANTS[1]))
    write_version(root, MODEL, 2, versioned_big(CONSTANTS[2], 8))
    write_version(root, MODEL, 3, versioned(CONSTANTS[3]))
    return root


def connections_of(worker: psutil.Process) -> set[int]:
    """The clients' ports of a worker's connections."""
    return {connection.raddr.port for connection in worker.net_connections("tcp") if connection.raddr}


def desired(admin: Admin) -> tuple[set[int], dict[str, int], str, list[int]]:
    """What an operator has set: versions served, labels, default, and the audit's ids."""
    model = admin.model(MODEL)
    served = {version.version for version in model.versions if version.digest}
    return served, dict(model.labels), model.default_target, [record.id for record in admin.audit(MODEL)]


def set_desired(admin: Admin) -> None:
    admin.load(MODEL, 1, 2, reason="as the test wants it")
    admin.label(MODEL, "stable", 1)
    admin.label(MODEL, "canary", 2)
    admin.default(MODEL, "stable")


def assert_answers(client: Client) -> None:
    """As `set_desired` wants."""
    assert client.predict(MODEL) == (1, CONSTANTS[1])
    assert client.predict(MODEL, "stable") == (1, CONSTANTS[1])
    assert client.predict(MODEL, "canary") == (2, CONSTANTS[2])
    with pytest.raises(Refused):
        client.predict(MODEL, "3")


def test_a_killed_worker_fails_only_what_was_in_flight_in_it_and_comes_back(models: Path, tmp_path: Path) -> None:
    with (
        Gateway(models, tmp_path / "state", workers=2) as gateway,
        admin_of(gateway.admin) as admin,
        Load(gateway.grpc, MODEL, CONSTANTS) as load,
    ):
        load.wait_for(500)
        pid = admin.status().workers[0].pid
        doomed = psutil.Process(pid)
        ports = connections_of(doomed)
        cut = {channel for channel, port in enumerate(load.local_ports) if port in ports}
        assert 0 < len(cut) < len(load.local_ports), "both workers have connections"
        killed = time.monotonic()
        doomed.kill()
        until(lambda: _serves_anew(admin, pid), "worker 0 serves again")
        ready = time.monotonic()
        print(f"\nworker ready {ready - killed:.2f} s after kill -9")
        assert _worker(admin, 0).restarts == 1
        assert _worker(admin, 1).restarts == 0
        load.wait_for(500)
        with client_of(gateway.grpc) as client:
            assert client.predict(MODEL) == (3, CONSTANTS[3])
    assert load.wrong == []
    assert {answer.channel for answer in load.failures} <= cut
    assert {answer.status for answer in load.failures} <= {grpc.StatusCode.UNAVAILABLE}
    assert len(load.failures) <= 4 * len(cut), "only what was in flight, four calls a connection"
    assert [a for a in load.failures if a.started > killed + 1] == []
    others = [answer for answer in load.between(killed, ready) if answer.channel not in cut]
    assert len(others) > 50


def _serves_anew(admin: Admin, old_pid: int) -> bool:
    worker = _worker(admin, 0)
    return worker.state == "serving" and worker.pid != old_pid


def _worker(admin: Admin, index: int) -> pb.Worker:
    return admin.status().workers[index]


def test_predictions_go_on_without_one_failure_while_control_is_killed_and_comes_back(
    models: Path, tmp_path: Path
) -> None:
    config = {"restart": {"initial_seconds": CONTROL_DOWN_SECONDS}}
    with (
        Gateway(models, tmp_path / "state", workers=2, config=config) as gateway,
        admin_of(gateway.admin) as admin,
        client_of(gateway.grpc) as client,
    ):
        set_desired(admin)
        before = desired(admin)
        workers = {worker.pid for worker in admin.status().workers}
        with Load(gateway.grpc, MODEL, CONSTANTS) as load:
            load.wait_for(200)
            (control,) = gateway.children("control")
            killed = time.monotonic()
            control.kill()
            until(lambda: not alive([control]), "control is dead")
            while_control_is_down(client)
            gateway.wait_ready()
            print(f"\ncontrol back {time.monotonic() - killed - CONTROL_DOWN_SECONDS:.2f} s after it was started again")
            assert desired(admin) == before
            assert {worker.pid for worker in admin.status().workers} == workers
            assert admin.available(MODEL) == {1, 2}
            load.wait_for(200)
        assert [(a.status, a.message) for a in load.failures] == []
        assert load.wrong == []
        assert {answer.version for answer in load.answers} == {1}
        assert admin.load(MODEL, 3).changed
        assert client.predict(MODEL, "3") == (3, CONSTANTS[3])
        assert client.predict(MODEL) == (1, CONSTANTS[1]), "labels kept their versions"


def while_control_is_down(client: Client) -> None:
    """What needs control is refused at once and says so; what does not, is answered."""
    ask = inference_pb.RepositoryModelLoadRequest(model_name=MODEL)
    until(lambda: code_of(client, ask) is grpc.StatusCode.UNAVAILABLE, "the workers have noticed", 1.0)
    with pytest.raises(Refused, match="control process") as refusal:
        client.ask("RepositoryModelLoad", ask)
    assert refusal.value.code is grpc.StatusCode.UNAVAILABLE
    assert client.ask("ServerReady", inference_pb.ServerReadyRequest()).ready
    assert_answers(client)


def code_of(client: Client, ask: inference_pb.RepositoryModelLoadRequest) -> grpc.StatusCode:
    try:
        client.ask("RepositoryModelLoad", ask)
    except Refused as error:
        return error.code
    return grpc.StatusCode.OK


def test_control_killed_in_the_middle_of_a_load_leaves_the_old_version_served(models: Path, tmp_path: Path) -> None:
    write_version(models, MODEL, 4, versioned_big(40.0, 60))
    with (
        Gateway(models, tmp_path / "state") as gateway,
        admin_of(gateway.admin) as admin,
        client_of(gateway.grpc) as client,
    ):
        set_desired(admin)
        with admin.watch() as watch:
            loading = admin.begin_load(MODEL, 4)
            watch.until(lambda event: event.version == 4 and event.state == pb.VERSION_STATE_LOADING)
            (control,) = gateway.children("control")
            control.kill()
        assert loading.exception() is not None
        until(lambda: not alive([control]), "control is dead")
        gateway.wait_ready()
        assert_answers(client)
        with admin.watch() as watch:  # what was half-way is undone, and can be done anew
            assert admin.load(MODEL, 4).changed
        assert client.predict(MODEL, "4") == (4, 40.0)


@contextmanager
def killed_whole(gateway: Gateway) -> Iterator[list[psutil.Process]]:
    """Kills the supervisor alone, and yields what its tree was."""
    tree = [gateway.supervisor, *gateway.supervisor.children(recursive=True)]
    assert gateway.process is not None
    gateway.process.kill()
    gateway.process.wait()
    gateway.process = None
    yield tree


def test_a_killed_supervisor_leaves_nothing_and_a_new_start_serves_the_same(models: Path, tmp_path: Path) -> None:
    segments = shared_memory()
    unshared = dict.fromkeys(("grpc", "http", "admin"), "127.7.3.1:0")  # where no client of another test takes a port
    first = Gateway(models, tmp_path / "state", workers=2, addresses=unshared)
    first.start()
    with admin_of(first.admin) as admin:
        set_desired(admin)
        before = desired(admin)
    addresses = {name: str(first.endpoints[name]) for name in ("grpc", "http", "admin")}
    with Load(first.grpc, MODEL, CONSTANTS) as load:
        load.wait_for(100)
        with killed_whole(first) as tree:
            until(lambda: alive(tree) == [], "every process has followed the supervisor", 5.0)
        until(lambda: all(is_free(address) for address in addresses.values()), "every port is free", 5.0)
        assert shared_memory() == segments
        with (
            Gateway(models, tmp_path / "state", workers=2, addresses=addresses) as second,
            admin_of(second.admin) as admin,
            client_of(second.grpc) as client,
        ):
            assert {name: second.endpoints[name] for name in addresses} == addresses
            load.wait_for(200)  # the same clients, which find it again
            assert desired(admin) == before
            assert_answers(client)
            load.__exit__()
    assert load.wrong == []


def test_without_its_repository_a_new_start_serves_from_the_cache_and_says_so(models: Path, tmp_path: Path) -> None:
    (models / MODEL / "model.yaml").write_text("versions: all\nbatching: {max_batch_size: 7}\n")
    first = Gateway(models, tmp_path / "state", workers=2)
    first.start()
    with admin_of(first.admin) as admin:
        set_desired(admin)
        before = desired(admin)
        digests = {version.version: version.digest for version in admin.model(MODEL).versions if version.digest}
    tree = [first.supervisor, *first.supervisor.children(recursive=True)]
    assert first.process is not None
    for process in tree:
        process.kill()
    first.process.wait()
    first.process = None
    models.rename(tmp_path / "elsewhere")
    with (
        Gateway(models, tmp_path / "state", workers=2) as second,
        admin_of(second.admin) as admin,
        client_of(second.grpc) as client,
    ):
        assert_answers(client)
        assert desired(admin) == before
        model = admin.model(MODEL)
        assert {version.version: version.digest for version in model.versions} == digests
        assert {version.max_batch_size for version in model.versions} == {7}, "the settings are kept with the version"
        assert "repository" in admin.status().repository_problem
        assert any("not in the repository" in problem for problem in model.problems)
        second.logged("what is loaded is served on")
        (tmp_path / "elsewhere").rename(models)
        assert admin.status().repository_problem == ""
        assert admin.load(MODEL, 3).changed
