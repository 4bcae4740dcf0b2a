from __future__ import annotations

import pytest
from gateway.auth import Principal, authenticate, require_master
from multidict import CIMultiDict

from gateway.errors import Forbidden, Unauthorized

KEY = "tg-master-schlüssel"


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer   {KEY} "},
        {"x-api-key": KEY},
        {"X-API-KEY": KEY, "Authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": KEY, "Authorization": "Bearer "},
    ],
)
def test_the_master_key_is_taken_from_either_header(headers):
    principal = authenticate(CIMultiDict(headers), KEY)

    assert principal == Principal(is_master=True, api_key_id=None, user_id=None)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {KEY}"},
        {"x-api-key": " "},
    ],
)
def test_a_request_without_a_key_is_told_how_to_send_one(headers):
    with pytest.raises(Unauthorized) as refusal:
        authenticate(CIMultiDict(headers), KEY)

    assert refusal.value.code == "missing_api_key"
    assert refusal.value.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "key",
    ["wrong", KEY[:-1], f"{KEY}x", KEY.upper(), "\udcff\udcfe", "ключ", "tg-master-schl\udcc3\udcbcssel"],
)
def test_a_wrong_key_is_refused_whatever_its_bytes(key):
    with pytest.raises(Unauthorized) as refusal:
        authenticate(CIMultiDict({"Authorization": f"Bearer {key}"}), KEY)

    assert refusal.value.code == "invalid_api_key"
    assert key not in refusal.value.message


def test_a_bearer_key_is_not_outvoted_by_the_other_header():
    with pytest.raises(Unauthorized):
        authenticate(CIMultiDict({"Authorization": "Bearer wrong", "x-api-key": KEY}), KEY)


def test_an_empty_master_key_lets_nobody_in():
    with pytest.raises(Unauthorized):
        authenticate(CIMultiDict({"Authorization": "Bearer ", "x-api-key": ""}), "")


def test_only_the_master_may_manage():
    require_master(Principal(is_master=True))

    with pytest.raises(Forbidden) as refusal:
        require_master(Principal(is_master=False, api_key_id="k"))
    assert refusal.value.code == "master_key_required"
