-- The embedded sink's schema (version 1) and statements; loaded by statements.py.
-- Times are UTC texts that sort as times do; cost is a text of nine places, so that no digit is lost.

-- name: schema_usage_logs
CREATE TABLE IF NOT EXISTS usage_logs (
    id                TEXT NOT NULL PRIMARY KEY,
    request_id        TEXT NOT NULL,
    timestamp         TEXT NOT NULL,
    endpoint          TEXT NOT NULL,
    status            TEXT NOT NULL,
    end_reason        TEXT NOT NULL,
    boot_id           TEXT,
    seq               INTEGER NOT NULL,
    api_key_id        TEXT,
    user_id           TEXT,
    route             TEXT,
    provider          TEXT,
    model             TEXT,
    status_code       INTEGER,
    error_code        TEXT,
    error_message     TEXT,
    stream            INTEGER NOT NULL,
    prompt_tokens     INTEGER,
    completion_tokens INTEGER,
    total_tokens      INTEGER,
    cached_tokens     INTEGER,
    reasoning_tokens  INTEGER,
    usage_source      TEXT NOT NULL,
    cost              TEXT,
    latency_ms        REAL,
    ttft_ms           REAL,
    tags              TEXT
);

-- name: schema_by_time
CREATE INDEX IF NOT EXISTS usage_logs_by_time ON usage_logs (timestamp, id);

-- name: schema_by_user
CREATE INDEX IF NOT EXISTS usage_logs_by_user ON usage_logs (user_id, timestamp, id)
WHERE user_id IS NOT NULL;

-- name: schema_by_key
CREATE INDEX IF NOT EXISTS usage_logs_by_key ON usage_logs (api_key_id, timestamp, id)
WHERE api_key_id IS NOT NULL;

-- name: schema_by_request
CREATE INDEX IF NOT EXISTS usage_logs_by_request ON usage_logs (request_id);

-- name: schema_usage_boots
CREATE TABLE IF NOT EXISTS usage_boots (
    boot_id    TEXT NOT NULL PRIMARY KEY,
    started_at TEXT NOT NULL,
    closed_at  TEXT,
    last_seq   INTEGER
);

-- name: insert_row
INSERT INTO usage_logs (
    id, request_id, timestamp, endpoint, status, end_reason, boot_id, seq, api_key_id, user_id, route,
    provider, model, status_code, error_code, error_message, stream, prompt_tokens, completion_tokens,
    total_tokens, cached_tokens, reasoning_tokens, usage_source, cost, latency_ms, ttft_ms, tags
) VALUES (
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
)
ON CONFLICT (id) DO NOTHING;

-- name: record_boot
INSERT INTO usage_boots (boot_id, started_at, closed_at, last_seq)
VALUES (:boot_id, :started_at, :closed_at, :last_seq)
ON CONFLICT (boot_id) DO UPDATE SET
    closed_at = coalesce(excluded.closed_at, closed_at),
    last_seq = coalesce(excluded.last_seq, last_seq);

-- name: select_rows
SELECT
    id, request_id, timestamp, endpoint, status, end_reason, boot_id, seq, api_key_id, user_id, route,
    provider, model, status_code, error_code, error_message, stream, prompt_tokens, completion_tokens,
    total_tokens, cached_tokens, reasoning_tokens, usage_source, cost, latency_ms, ttft_ms, tags
FROM usage_logs;
