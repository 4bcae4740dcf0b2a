from __future__ import annotations

import pytest

from gateway import errors


def test_the_body_has_the_openai_shape():
    body = errors.error_body("No.", "invalid_request_error", "bad_request", "model")

    assert body == {
        "error": {"message": "No.", "type": "invalid_request_error", "code": "bad_request", "param": "model"}
    }


@pytest.mark.parametrize(
    ("error", "status", "code", "type"),
    [
        (errors.BadRequest("x"), 400, "bad_request", "invalid_request_error"),
        (errors.Unauthorized("x"), 401, "invalid_api_key", "authentication_error"),
        (errors.Forbidden("x"), 403, "forbidden", "permission_error"),
        (errors.NotFound("x"), 404, "not_found", "not_found_error"),
        (errors.PayloadTooLarge("x"), 413, "request_too_large", "invalid_request_error"),
        (errors.UnsupportedMediaType("x"), 415, "unsupported_media_type", "invalid_request_error"),
        (errors.InternalError(), 500, "internal_error", "api_error"),
        (errors.NotOffered("x"), 501, "not_implemented", "api_error"),
        (errors.ServiceUnavailable("x"), 503, "service_unavailable", "service_unavailable"),
    ],
)
def test_each_class_has_its_status_code_and_type(error, status, code, type):
    assert (error.status, error.code, error.type) == (status, code, type)
    assert error.param is None


def test_a_raiser_may_sharpen_code_parameter_and_headers():
    error = errors.ServiceUnavailable("Later.", "queue_full", "model", headers={"Retry-After": "1"})

    assert (error.code, error.param, error.headers) == ("queue_full", "model", {"Retry-After": "1"})
    assert errors.ServiceUnavailable("Later.").code == "service_unavailable"


@pytest.mark.parametrize(
    ("status", "type"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "service_unavailable"),
    ],
)
def test_a_status_without_a_class_has_a_type_too(status, type):
    assert errors.error_type(status) == type
