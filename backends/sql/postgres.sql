-- The PostgreSQL sink's schema (version 1) and statements; loaded by statements.py.
-- {rows} and {boots} are the names of the tables, checked and quoted; {key} is the row's identity: its id, and
-- beside it the time in a partitioned table, whose unique key has to hold the time. Both never change.

-- name: describe_rows
SELECT
    obj_description(c.oid, 'pg_class') AS comment,
    c.relkind::text AS kind,
    ARRAY(
        SELECT a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
        FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    )::text[] AS columns
FROM pg_class AS c
WHERE c.oid = to_regclass($1);

-- name: has_table
SELECT to_regclass($1) IS NOT NULL;

-- name: lock_schema
SELECT pg_advisory_xact_lock(hashtext('tallygate'), hashtext($1));

-- name: try_lock_schema
SELECT pg_try_advisory_xact_lock(hashtext('tallygate'), hashtext($1));

-- name: create_rows
-- tags is json, not jsonb: it comes back as it was written, digit for digit.
CREATE TABLE {rows} (
    id                uuid             NOT NULL,
    request_id        text             NOT NULL,
    timestamp         timestamptz      NOT NULL,
    endpoint          text             NOT NULL,
    status            text             NOT NULL,
    end_reason        text             NOT NULL,
    boot_id           uuid,
    seq               bigint           NOT NULL,
    api_key_id        text,
    user_id           text,
    route             text,
    provider          text,
    model             text,
    status_code       integer,
    error_code        text,
    error_message     text,
    stream            boolean          NOT NULL,
    prompt_tokens     bigint,
    completion_tokens bigint,
    total_tokens      bigint,
    cached_tokens     bigint,
    reasoning_tokens  bigint,
    usage_source      text             NOT NULL,
    cost              numeric(18, 9),
    latency_ms        double precision,
    ttft_ms           double precision,
    tags              json,
    PRIMARY KEY ({key})
){partitioning};

-- name: index_by_time
CREATE INDEX ON {rows} (timestamp, id);

-- name: index_by_user
CREATE INDEX ON {rows} (user_id, timestamp, id) WHERE user_id IS NOT NULL;

-- name: index_by_key
CREATE INDEX ON {rows} (api_key_id, timestamp, id) WHERE api_key_id IS NOT NULL;

-- name: index_by_request
CREATE INDEX ON {rows} (request_id);

-- name: create_boots
CREATE TABLE IF NOT EXISTS {boots} (
    boot_id    uuid        NOT NULL PRIMARY KEY,
    started_at timestamptz NOT NULL,
    closed_at  timestamptz,
    last_seq   bigint,
    abandoned  text        NOT NULL DEFAULT ''
);

-- name: label_rows
COMMENT ON TABLE {rows} IS '{label}';

-- name: insert_rows
INSERT INTO {rows} (
    id, request_id, timestamp, endpoint, status, end_reason, boot_id, seq, api_key_id, user_id, route,
    provider, model, status_code, error_code, error_message, stream, prompt_tokens, completion_tokens,
    total_tokens, cached_tokens, reasoning_tokens, usage_source, cost, latency_ms, ttft_ms, tags
)
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::bigint[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::integer[], $15::text[], $16::text[],
    $17::boolean[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[], $23::text[],
    $24::numeric[], $25::float8[], $26::float8[], $27::json[]
)
ON CONFLICT ({key}) DO NOTHING;

-- name: create_incoming
CREATE TEMPORARY TABLE tallygate_incoming (LIKE {rows}) ON COMMIT DROP;

-- name: insert_incoming
INSERT INTO {rows} (
    id, request_id, timestamp, endpoint, status, end_reason, boot_id, seq, api_key_id, user_id, route,
    provider, model, status_code, error_code, error_message, stream, prompt_tokens, completion_tokens,
    total_tokens, cached_tokens, reasoning_tokens, usage_source, cost, latency_ms, ttft_ms, tags
)
SELECT
    id, request_id, timestamp, endpoint, status, end_reason, boot_id, seq, api_key_id, user_id, route,
    provider, model, status_code, error_code, error_message, stream, prompt_tokens, completion_tokens,
    total_tokens, cached_tokens, reasoning_tokens, usage_source, cost, latency_ms, ttft_ms, tags
FROM pg_temp.tallygate_incoming
ON CONFLICT ({key}) DO NOTHING;

-- name: record_boot
INSERT INTO {boots} AS known (boot_id, started_at, closed_at, last_seq, abandoned)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (boot_id) DO UPDATE SET
    closed_at = coalesce(excluded.closed_at, known.closed_at),
    last_seq = coalesce(excluded.last_seq, known.last_seq),
    abandoned = coalesce(nullif(excluded.abandoned, ''), known.abandoned);

-- name: probe
SELECT current_setting('transaction_read_only') = 'on';

-- name: list_partitions
SELECT c.relname::text
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass($1);

-- name: create_partition
-- Attached, not made in place: that would wait until nobody reads or writes any part of the table.
CREATE TABLE {partition} (LIKE {rows} INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
ALTER TABLE {rows} ATTACH PARTITION {partition} FOR VALUES FROM ('{start}') TO ('{end}');

-- name: drop_partition
DROP TABLE {partition};

-- name: delete_old_rows
DELETE FROM {rows} WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {rows} WHERE timestamp < $1 ORDER BY timestamp LIMIT $2 FOR UPDATE SKIP LOCKED
));

-- name: select_rows
SELECT
    id, request_id, timestamp, endpoint, status, end_reason, boot_id, seq, api_key_id, user_id, route,
    provider, model, status_code, error_code, error_message, stream, prompt_tokens, completion_tokens,
    total_tokens, cached_tokens, reasoning_tokens, usage_source, cost, latency_ms, ttft_ms, tags
FROM {rows}{where}
ORDER BY timestamp DESC, id DESC
LIMIT {limit};

-- name: read_boots
SELECT boot_id AS id, started_at, closed_at, last_seq, abandoned FROM {boots} ORDER BY started_at, boot_id;

-- name: read_runs
-- Neighbours among the numbers of a boot differ from their rank among them by the same.
SELECT boot_id, min(seq) AS first, max(seq) AS last, sum(rows)::bigint AS rows, max(newest) AS newest
FROM (
    SELECT
        boot_id, seq, count(*) AS rows, max(timestamp) AS newest,
        seq - row_number() OVER (PARTITION BY boot_id ORDER BY seq) AS run
    FROM {rows}
    WHERE boot_id IS NOT NULL AND seq > 0
    GROUP BY boot_id, seq
) AS numbers
GROUP BY boot_id, run
ORDER BY boot_id, first;

-- name: read_repeated
SELECT seq, id FROM {rows}
WHERE boot_id = $1 AND seq IN (
    SELECT seq FROM {rows} WHERE boot_id = $1 AND seq > 0 GROUP BY seq HAVING count(*) > 1
)
ORDER BY seq, id
LIMIT $2;

-- name: sum_groups
-- sum() over bigint and numeric is numeric, so no digit is lost; percentile_disc() is the nearest rank.
SELECT
    {keys}
    count(*) FILTER (WHERE status <> 'absorbed') AS calls,
    count(*) FILTER (WHERE status = 'error') AS errors,
    coalesce(sum(prompt_tokens), 0) AS prompt_tokens,
    coalesce(sum(completion_tokens), 0) AS completion_tokens,
    coalesce(sum(total_tokens), 0) AS total_tokens,
    coalesce(sum(cached_tokens), 0) AS cached_tokens,
    coalesce(sum(reasoning_tokens), 0) AS reasoning_tokens,
    coalesce(sum(cost), 0.000000000) AS cost,
    percentile_disc(ARRAY[0.50, 0.95, 0.99]) WITHIN GROUP (ORDER BY latency_ms)
        FILTER (WHERE status <> 'absorbed') AS latencies
FROM {rows}{where}{group_by};
