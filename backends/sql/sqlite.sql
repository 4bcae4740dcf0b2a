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
    last_seq   INTEGER,
    abandoned  TEXT NOT NULL DEFAULT ''
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
INSERT INTO usage_boots (boot_id, started_at, closed_at, last_seq, abandoned)
VALUES (:boot_id, :started_at, :closed_at, :last_seq, :abandoned)
ON CONFLICT (boot_id) DO UPDATE SET
    closed_at = coalesce(excluded.closed_at, closed_at),
    last_seq = coalesce(excluded.last_seq, last_seq),
    abandoned = coalesce(nullif(excluded.abandoned, ''), abandoned);

-- name: read_boots
SELECT boot_id, started_at, closed_at, last_seq, abandoned FROM usage_boots ORDER BY started_at, boot_id;

-- name: read_runs
-- Neighbours among the numbers of a boot differ from their rank among them by the same.
SELECT boot_id, min(seq), max(seq), sum(rows), max(newest)
FROM (
    SELECT
        boot_id, seq, count(*) AS rows, max(timestamp) AS newest,
        seq - row_number() OVER (PARTITION BY boot_id ORDER BY seq) AS run
    FROM usage_logs
    WHERE boot_id IS NOT NULL AND seq > 0
    GROUP BY boot_id, seq
)
GROUP BY boot_id, run
ORDER BY boot_id, 2;

-- name: read_repeated
SELECT seq, id FROM usage_logs
WHERE boot_id = :boot_id AND seq IN (
    SELECT seq FROM usage_logs WHERE boot_id = :boot_id AND seq > 0 GROUP BY seq HAVING count(*) > 1
)
ORDER BY seq, id
LIMIT :limit;

-- name: select_rows
SELECT
    id, request_id, timestamp, endpoint, status, end_reason, boot_id, seq, api_key_id, user_id, route,
    provider, model, status_code, error_code, error_message, stream, prompt_tokens, completion_tokens,
    total_tokens, cached_tokens, reasoning_tokens, usage_source, cost, latency_ms, ttft_ms, tags
FROM usage_logs;

-- name: sum_groups
-- Sums in two halves of 32 bits: the sum of two numbers may need more than the 64 bits that SQLite adds with.
SELECT
    {keys},
    count(*) FILTER (WHERE status <> 'absorbed'),
    count(*) FILTER (WHERE status = 'error'),
    count(latency_ms) FILTER (WHERE status <> 'absorbed'),
    sum(prompt_tokens >> 32), sum(prompt_tokens & 0xffffffff),
    sum(completion_tokens >> 32), sum(completion_tokens & 0xffffffff),
    sum(total_tokens >> 32), sum(total_tokens & 0xffffffff),
    sum(cached_tokens >> 32), sum(cached_tokens & 0xffffffff),
    sum(reasoning_tokens >> 32), sum(reasoning_tokens & 0xffffffff),
    sum(nanos >> 32), sum(nanos & 0xffffffff)
FROM (SELECT *, CAST(replace(cost, '.', '') AS INTEGER) AS nanos FROM usage_logs){where}{group_by};

-- name: rank_latencies
SELECT * FROM (
    SELECT
        {keys},
        row_number() OVER (PARTITION BY {keys} ORDER BY latency_ms) AS rank,
        latency_ms,
        count(*) OVER (PARTITION BY {keys}) AS calls
    FROM usage_logs{where}
)
WHERE rank IN ((calls * 50 + 99) / 100, (calls * 95 + 99) / 100, (calls * 99 + 99) / 100);
