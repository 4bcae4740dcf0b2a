"""``tallygate keys``: what it prints, how it ends, and what is in the store then."""

from __future__ import annotations

import json

import pytest

from gateway import cli


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """In an empty folder, with the defaults, and without taking over this process's logging."""
    monkeypatch.chdir(tmp_path)
    for name in ("LOG_WRITER_STRATEGY", "GATEWAY_CONFIG", "GATEWAY_MASTER_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cli, "set_up_logging", lambda: None)


STORE = "store: sqlite:///./data/gateway.db\n"


@pytest.fixture
def run(capfdbinary):
    """Runs ``tallygate keys``; its exit status, what it printed and what it complained of."""

    def go(*arguments):
        status = cli.main(["keys", *arguments])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return go


@pytest.fixture
def told(run):
    """What ``tallygate keys`` tells as JSON."""

    def go(*arguments):
        status, out, err = run(*arguments, "--format", "json")
        assert (status, err) == (0, STORE if arguments[0] == "create" else "")
        return json.loads(out)

    return go


def test_a_new_key_is_printed_once_with_its_secret(run, told):
    key = told("create", "--name", "ci")

    assert key["key"].startswith("tg-") and key["user_id"] == f"apikey-{key['id']}"
    listed = told("list")
    assert [each["id"] for each in listed["data"]] == [key["id"]]
    assert key["key"] not in json.dumps(listed) + run("list")[1]


def test_a_table_shows_the_secret_of_a_new_key(run):
    status, out, err = run("create", "--name", "ci")

    assert (status, err) == (0, STORE)
    head, line = out.splitlines()
    assert head.split() == ["id", "user_id", "name", "key"]
    assert line.split()[3].startswith("tg-")


def test_every_member_can_be_given(told):
    key = told(
        "create",
        *("--expires-at", "2031-01-02T03:04:05Z", "--allowed-models", "a:b", "--allowed-models", "c:*"),
        *("--rate-limit-rpm", "10", "--rate-limit-tpm", "20", "--metadata", '{"team": "search"}'),
    )

    assert (key["expires_at"], key["allowed_models"]) == ("2031-01-02T03:04:05.000Z", ["a:b", "c:*"])
    assert (key["rate_limit_rpm"], key["rate_limit_tpm"]) == (10, 20)
    assert key["metadata"] == {"team": "search"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--user-id", "nobody"], "--user-id: There is no such user; make it first with POST /v1/users.\n"),
        (["--expires-at", "tomorrow"], "--expires-at: expires_at is a time with its zone"),
        (["--rate-limit-rpm", "0"], "--rate-limit-rpm: "),
        (["--metadata", "{"], "--metadata: "),
        (["--metadata", '{"a": "\udcff"}'], "--metadata: "),
        (["--allowed-models", ""], "--allowed-models: "),
    ],
)
def test_what_is_refused_is_one_line(run, arguments, complaint):
    status, out, err = run("create", *arguments)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(complaint)


def test_a_rotation_prints_another_secret(told, run):
    key = told("create")

    turned = told("rotate", key["id"], "--overlap-s", "0")

    assert turned["id"] == key["id"] and turned["key"] != key["key"]
    assert turned["previous_expires_at"] is None
    assert run("rotate", key["id"], "--overlap-s", "-1")[0] == 2


def test_a_revoked_key_stays_in_the_list_and_is_not_turned(told, run):
    key = told("create")

    for _ in range(2):
        assert run("revoke", key["id"]) == (0, f"{key['id']}: revoked\n", "")

    assert told("list")["data"][0]["revoked_at"] is not None
    assert run("rotate", key["id"]) == (2, "", "This key is revoked; create another one.\n")


def test_a_store_that_nobody_made_is_told_and_not_made(run, tmp_path):
    for command in (("list",), ("revoke", "none"), ("rotate", "none")):
        status, out, err = run(*command)
        assert (status, out) == (2, "") and err.startswith("store: schema_missing: there is no file")
    assert not (tmp_path / "data" / "gateway.db").exists()


def test_a_key_that_is_not_there_is_told(run):
    assert run("create")[0] == 0
    for command in ("revoke", "rotate"):
        assert run(command, "none") == (2, "", "There is no key with this id.\n")


def test_a_list_goes_on_behind_its_cursor(told, run):
    ids = [told("create")["id"] for _ in range(3)]

    page = told("list", "--limit", "2")

    assert page["has_more"]
    rest = told("list", "--cursor", page["cursor"])
    assert [each["id"] for each in (*page["data"], *rest["data"])] == ids
    assert told("list", "--user-id", f"apikey-{ids[1]}")["data"][0]["id"] == ids[1]
    assert run("list", "--limit", "0")[0] == 2


def test_a_store_of_one_process_is_refused(run, monkeypatch):
    monkeypatch.setenv("GATEWAY_STORE__URL", "memory:")

    status, out, err = run("create")

    assert (status, out) == (2, "")
    assert err.startswith("store.url: ")
