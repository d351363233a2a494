"""Of all processes that could train a run one does, also where holders die: on file locks and in an MLflow store."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from test_cli import ENVIRONMENT, ended, here, save, start

from harness.data.datasets import Dataset
from harness.tracking import claims as claims_module
from harness.tracking import provenance
from harness.tracking.claims import Claims, FolderClaims, StoreClaims, Unclaimed, claims_of, hold
from harness.tracking.store import StoreError, open_store, sqlite_uri

NewStore = Callable[[Path], MlflowClient]


@pytest.fixture(params=["folder", "store"])
def make(request: pytest.FixtureRequest, tmp_path: Path, new_store: NewStore) -> Callable[[], Claims]:
    """New claims on one and the same place, as another process would have them."""
    if request.param == "folder":
        return lambda: FolderClaims(tmp_path / "claims", "1")
    new_store(tmp_path)
    return lambda: StoreClaims(sqlite_uri(tmp_path), "1", beat=0.05, expires=0.5)


def models(folder: Path) -> list[str]:
    """The names of the claims in a store."""
    client = MlflowClient(tracking_uri=sqlite_uri(folder), registry_uri=sqlite_uri(folder))
    return sorted(model.name for model in client.search_registered_models())


def test_a_claim_is_held_by_one_until_it_is_released(make: Callable[[], Claims]) -> None:
    mine, other = make(), make()
    claim = mine.take("a")
    assert claim is not None
    assert other.take("a") is None
    assert mine.take("a") is None
    assert other.take("b") is not None
    claim.release()
    claim.release()
    assert other.take("a") is not None
    mine.close()
    other.close()
    third = make()
    assert third.take("a") is not None
    third.close()


def test_claims_of_different_experiments_are_different(tmp_path: Path) -> None:
    both = FolderClaims(tmp_path, "1"), FolderClaims(tmp_path, "2")
    assert all(claims.take("a") is not None for claims in both)
    for claims in both:
        claims.close()


def test_of_many_that_ask_at_once_one_gets_the_claim(make: Callable[[], Claims]) -> None:
    everyone, gate, got = [make() for _ in range(6)], threading.Barrier(6), []

    def ask(claims: Claims) -> None:
        gate.wait()
        for _ in range(3):
            got.append(claims.take("a"))

    threads = [threading.Thread(target=ask, args=(claims,)) for claims in everyone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([claim for claim in got if claim is not None]) == 1
    for claims in everyone:
        claims.close()


def test_who_waits_for_a_claim_gets_it_once_it_is_free(make: Callable[[], Claims]) -> None:
    mine, other, order = make(), make(), []
    other.pause = 0.02
    claim = mine.take("a")
    assert claim is not None

    def wait() -> None:
        with hold(other, "a"):
            order.append("other")

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    order.append("mine")
    claim.release()
    waiting.join()
    assert order == ["mine", "other"]


HOLDER = """
import sys, time
from pathlib import Path
from harness.tracking.claims import {kind}
claims = {kind}({place}, "1")
assert claims.take("a") is not None
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["FolderClaims", "StoreClaims"])
def test_the_claim_of_a_killed_process_is_free_at_once(kind: str, tmp_path: Path, new_store: NewStore) -> None:
    new_store(tmp_path)
    place = f"Path({str(tmp_path / 'claims')!r})" if kind == "FolderClaims" else repr(sqlite_uri(tmp_path))
    code = HOLDER.format(kind=kind, place=place)
    with subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        claims = claims_of(None if kind == "FolderClaims" else sqlite_uri(tmp_path), tmp_path, "1")
        assert claims.take("a") is None
        holder.kill()
        holder.wait()
        claim = claims.take("a")
        assert claim is not None
        claim.release()
    assert models(tmp_path) == []


def elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> StoreClaims:
    """Claims that look as if another machine had taken them."""
    process = provenance.process()
    monkeypatch.setattr(provenance, "process", lambda: process | {"host": "another"})
    return StoreClaims(sqlite_uri(folder), "1", beat=0.05, expires=0.5)


def test_the_claim_of_another_machine_lives_as_long_as_it_beats(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_store(tmp_path)
    far = elsewhere(monkeypatch, tmp_path)
    claim = far.take("a")
    assert claim is not None
    near = StoreClaims(sqlite_uri(tmp_path), "1", expires=0.5)
    for _ in range(8):  # longer than a claim lives without a beat
        assert near.take("a") is None
        time.sleep(0.1)
    far._closed.set()  # the machine is gone: nothing beats, nothing is released
    until = time.monotonic() + 20
    while (taken := near.take("a")) is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert models(tmp_path) == ["harness-claim.1.a.2"]
    taken.release()
    assert models(tmp_path) == []


def test_a_holder_learns_that_its_claim_was_taken_over(tmp_path: Path, new_store: NewStore) -> None:
    client = new_store(tmp_path)
    claims = StoreClaims(sqlite_uri(tmp_path), "1", beat=0.05)
    claim = claims.take("a")
    assert claim is not None
    client.delete_registered_model("harness-claim.1.a.1")
    assert claim.lost.wait(20)
    claims.close()


def test_while_nobody_could_look_a_claim_grows_no_older(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_store(tmp_path)
    far = elsewhere(monkeypatch, tmp_path)
    far._closed.set()  # it never beats, as while the store is away
    assert far.take("a") is not None
    near = StoreClaims(sqlite_uri(tmp_path), "1", expires=0.5)
    for _ in range(3):
        assert near.take("a") is None
        time.sleep(0.7)


def test_a_claim_that_could_not_be_deleted_stands_in_nobodys_way(tmp_path: Path, new_store: NewStore) -> None:
    new_store(tmp_path)
    claims = StoreClaims(sqlite_uri(tmp_path), "1")
    claim = claims.take("a")
    assert claim is not None
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as database:
        database.execute("PRAGMA legacy_alter_table = ON")
        database.execute("ALTER TABLE registered_models RENAME TO away")
        claim.release()
        database.execute("ALTER TABLE away RENAME TO registered_models")
    assert models(tmp_path) == ["harness-claim.1.a.1"]
    again = claims.take("a")
    assert again is not None
    again.release()
    assert models(tmp_path) == []
    claims.close()


def test_a_claim_that_was_made_though_the_answer_was_lost_stands_in_nobodys_way(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_store(tmp_path)
    claims = StoreClaims(sqlite_uri(tmp_path), "1")
    create = claims._client.create_registered_model

    def cut_off(*arguments: object, **named: object) -> None:
        create(*arguments, **named)
        raise MlflowException("API request to http://x failed with exception Connection aborted")

    monkeypatch.setattr(claims._client, "create_registered_model", cut_off)
    with pytest.raises(MlflowException, match="aborted"):
        claims.take("a")
    monkeypatch.undo()
    claim = claims.take("a")
    assert claim is not None
    claim.release()
    assert models(tmp_path) == []
    claims.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file: runs cannot be claimed: "):
        FolderClaims(tmp_path / "file", "1").take("a")


def test_without_others_every_claim_is_granted() -> None:
    assert Unclaimed().take("a") is not None
    assert Unclaimed().take("a") is not None


def test_a_run_that_was_taken_over_is_waited_for_and_not_written_to(
    tmp_path: Path, rows: Dataset, new_store: NewStore, monkeypatch: pytest.MonkeyPatch, slots: list[str]
) -> None:
    save(rows, tmp_path)
    client = new_store(tmp_path / "mlruns")
    uri = sqlite_uri(tmp_path / "mlruns")
    monkeypatch.setattr(claims_module, "claims_of", lambda *_: StoreClaims(uri, "1", beat=0.05))
    words = (*WORDS, "sweep.name=taken", "optimizer=sgd", "seeds=1", "train.steps=20000", "train.probe.at=[]")
    seen: list[str] = []

    def take_over() -> None:
        while not seen:
            seen.extend(name for name in models(tmp_path / "mlruns") if ".report." not in name)
            time.sleep(0.01)
        client.delete_registered_model(seen[0])

    thread = threading.Thread(target=take_over)
    thread.start()
    done = here(tmp_path, *words)
    thread.join()
    assert done.code == 0, done
    experiment = client.get_experiment_by_name("taken")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    assert [run.info.status for run in runs if "outcome" in run.data.tags] == ["FINISHED"]
    assert "interrupted" not in {run.data.tags.get("outcome") for run in runs}


WORDS = (
    *("sweep.name=together", "data=npz", "data.path=rows.npz", "arch=softmax", "optimizer=sgd,adam", "seeds=3"),
    *("train.steps=400", "train.batch_size=10", "train.evaluate={at:[0],every:200}", "train.probe.at=[0]"),
)


@pytest.mark.parametrize("where", ["folder", "uri"])
def test_two_processes_that_start_the_same_sweep_together_train_each_run_once(
    where: str, tmp_path: Path, rows: Dataset, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(rows, tmp_path)
    monkeypatch.chdir(tmp_path)  # MLflow keeps files of an sqlite store where it was opened
    new_store(tmp_path / "mlruns")
    words = (*WORDS, f"tracking.uri={sqlite_uri(tmp_path / 'mlruns')}") if where == "uri" else WORDS
    another = start(tmp_path, *words)
    both = here(tmp_path, *words), ended(another)
    assert [done.code for done in both] == [0, 0], both
    client = open_store(None, tmp_path / "mlruns", create=False)
    experiment = client.get_experiment_by_name("together")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    kinds = [run.data.tags["kind"] for run in found]
    assert {kind: kinds.count(kind) for kind in kinds} == {"run": 6, "arm": 2, "report": 1}
    assert len({run.data.tags.get("run_key") for run in found if run.data.tags["kind"] == "run"}) == 6
    assert {run.info.status for run in found} == {"FINISHED"}
    trained = sum(done.out.count("test accuracy 0.") + done.out.count("test accuracy 1.") for done in both)
    assert trained == 6
    assert models(tmp_path / "mlruns") == []
    assert not (tmp_path / "mlruns" / "claims").exists()
