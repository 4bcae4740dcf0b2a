-- ClickHouse's schema (version 1) and statements; loaded by statements.py. $names are filled in by
-- clickhouse_schema.py and clickhouse_queries.py with identifiers that were checked; values are bound.
--
-- A row sent twice has the same sorting key, so that merges, FINAL and the view usage_logs_once keep one of it.
-- toUInt128: a UUID itself sorts by its second half. fsync: an answer is a promise, also across a power cut.

-- name: create_table
CREATE TABLE IF NOT EXISTS $table $on_cluster (
    id                UUID,
    request_id        String,
    timestamp         DateTime64(6, 'UTC'),
    endpoint          LowCardinality(String),
    status            LowCardinality(String),
    end_reason        LowCardinality(String),
    boot_id           Nullable(UUID),
    seq               Int64,
    api_key_id        Nullable(String),
    user_id           Nullable(String),
    route             LowCardinality(Nullable(String)),
    provider          LowCardinality(Nullable(String)),
    model             LowCardinality(Nullable(String)),
    status_code       Nullable(Int32),
    error_code        LowCardinality(Nullable(String)),
    error_message     Nullable(String),
    stream            Bool,
    prompt_tokens     Nullable(Int64),
    completion_tokens Nullable(Int64),
    total_tokens      Nullable(Int64),
    cached_tokens     Nullable(Int64),
    reasoning_tokens  Nullable(Int64),
    usage_source      LowCardinality(String),
    cost              Nullable(Decimal(18, 9)),
    latency_ms        Nullable(Float64),
    ttft_ms           Nullable(Float64),
    tags              Nullable(String),
    -- A call's row beats what a crash left to be said of it, whichever comes last.
    is_whole          UInt8 MATERIALIZED end_reason != 'crash',
    INDEX by_user     user_id    TYPE bloom_filter GRANULARITY 1,
    INDEX by_key      api_key_id TYPE bloom_filter GRANULARITY 1,
    INDEX by_request  request_id TYPE bloom_filter GRANULARITY 1
)
ENGINE = $engine
PARTITION BY toYYYYMM(timestamp)
ORDER BY (timestamp, toUInt128(id))
SETTINGS
    non_replicated_deduplication_window = 10000,
    replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800,
    fsync_after_insert = 1,
    fsync_part_directory = 1
COMMENT 'tallygate usage_logs, schema $version';

-- name: create_boots
CREATE TABLE IF NOT EXISTS usage_boots $on_cluster (
    boot_id    UUID,
    started_at DateTime64(6, 'UTC'),
    closed_at  Nullable(DateTime64(6, 'UTC')),
    last_seq   Nullable(Int64),
    abandoned  String,
    is_closed  UInt8
)
ENGINE = $boots_engine
ORDER BY boot_id
SETTINGS
    fsync_after_insert = 1,
    fsync_part_directory = 1
COMMENT 'tallygate usage_boots, schema $version: of one boot the row with the greatest is_closed counts';

-- name: create_view
CREATE VIEW IF NOT EXISTS $view $on_cluster AS
SELECT * FROM $table FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- name: set_retention
ALTER TABLE $table $on_cluster MODIFY TTL toDateTime(timestamp) + toIntervalDay($days);

-- name: describe_tables
SELECT name, engine, engine_full, comment
FROM system.tables
WHERE database = currentDatabase() AND name IN ({table:String}, 'usage_boots', {view:String});

-- name: describe_columns
SELECT name, type
FROM system.columns
WHERE database = currentDatabase() AND table = {table:String} AND default_kind NOT IN ('MATERIALIZED', 'ALIAS');

-- name: probe
SELECT 1 FROM $table LIMIT 0;

-- name: record_boot
INSERT INTO usage_boots (boot_id, started_at, closed_at, last_seq, abandoned, is_closed)
SELECT
    {boot_id:UUID},
    fromUnixTimestamp64Micro({started_at:Int64}, 'UTC'),
    fromUnixTimestamp64Micro({closed_at:Nullable(Int64)}, 'UTC'),
    {last_seq:Nullable(Int64)},
    {abandoned:String},
    isNotNull({closed_at:Nullable(Int64)});

-- name: select_rows
-- Without FINAL, which would read and sort the whole range for one page: in this order a row that lies there
-- twice comes twice in succession, and the reader takes it once: the last, which no crash left if there is one.
SELECT
    id, request_id, timestamp, endpoint, status, end_reason, boot_id, seq, api_key_id, user_id, route,
    provider, model, status_code, error_code, error_message, stream, prompt_tokens, completion_tokens,
    total_tokens, cached_tokens, reasoning_tokens, usage_source, cost, latency_ms, ttft_ms, tags
FROM $table
$where
ORDER BY timestamp DESC, toUInt128(id) DESC, end_reason = 'crash' DESC
LIMIT {limit:UInt64};

-- name: read_boots
SELECT boot_id, started_at, closed_at, last_seq, abandoned
FROM usage_boots FINAL
ORDER BY started_at, boot_id;

-- name: read_runs
-- Neighbours among the numbers of a boot differ from their rank among them by the same. FINAL: a row that a
-- merge has not met yet is one row.
SELECT boot, min(number), max(number), sum(rows), max(newest)
FROM (
    SELECT boot, number, rows, newest, number - row_number() OVER (PARTITION BY boot ORDER BY number) AS run
    FROM (
        SELECT assumeNotNull(boot_id) AS boot, seq AS number, count() AS rows, max(timestamp) AS newest
        FROM $table FINAL
        WHERE isNotNull(boot_id) AND seq > 0
        GROUP BY boot, number
    )
)
GROUP BY boot, run
ORDER BY boot, 2
SETTINGS max_bytes_before_external_group_by = 500000000, max_bytes_before_external_sort = 500000000;

-- name: read_repeated
SELECT seq, id FROM $table FINAL
WHERE boot_id = {boot_id:UUID} AND seq IN (
    SELECT seq FROM $table FINAL WHERE boot_id = {boot_id:UUID} AND seq > 0 GROUP BY seq HAVING count() > 1
)
ORDER BY seq, toUInt128(id)
LIMIT {limit:UInt64};

-- name: summarise
WITH
    status != 'absorbed' AS is_call,
    arraySort(groupArrayIf(latency_ms, is_call AND isNotNull(latency_ms))) AS latencies,
    length(latencies) AS measured
SELECT
    $keys
    countIf(is_call),
    countIf(status = 'error'),
    ifNull(sum(toInt128(prompt_tokens)), 0),
    ifNull(sum(toInt128(completion_tokens)), 0),
    ifNull(sum(toInt128(total_tokens)), 0),
    ifNull(sum(toInt128(cached_tokens)), 0),
    ifNull(sum(toInt128(reasoning_tokens)), 0),
    ifNull(sum(cost), 0),
    -- by nearest rank: the smallest with at least that share of the calls at or below it
    if(measured = 0, NULL, latencies[intDiv(measured * 50 + 99, 100)]),
    if(measured = 0, NULL, latencies[intDiv(measured * 95 + 99, 100)]),
    if(measured = 0, NULL, latencies[intDiv(measured * 99 + 99, 100)])
FROM $table FINAL
$where
$group_by;
