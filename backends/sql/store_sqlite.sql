-- The store in one SQLite file: schema (version 1) and statements; loaded by statements.py.
-- Times are whole milliseconds since 1970 UTC, money whole nano-dollars; lists and metadata are JSON.
-- Ids are compared byte by byte: the collation BINARY, which is the default.

-- name: schema_api_keys
CREATE TABLE IF NOT EXISTS api_keys (
    id                  TEXT NOT NULL PRIMARY KEY,
    secret_hash         TEXT NOT NULL UNIQUE,
    hint                TEXT NOT NULL,
    user_id             TEXT NOT NULL,
    name                TEXT,
    created_at          INTEGER NOT NULL,
    expires_at          INTEGER,
    revoked_at          INTEGER,
    last_used_at        INTEGER,
    previous_hash       TEXT,
    previous_expires_at INTEGER,
    allowed_models      TEXT,
    rate_limit_rpm      INTEGER,
    rate_limit_tpm      INTEGER,
    metadata            TEXT NOT NULL
);

-- name: schema_keys_by_previous_hash
CREATE INDEX IF NOT EXISTS api_keys_by_previous_hash ON api_keys (previous_hash)
WHERE previous_hash IS NOT NULL;

-- name: schema_keys_by_user
CREATE INDEX IF NOT EXISTS api_keys_by_user ON api_keys (user_id, id);

-- name: schema_users
CREATE TABLE IF NOT EXISTS users (
    id                TEXT NOT NULL PRIMARY KEY,
    alias             TEXT,
    budget_id         TEXT,
    blocked           INTEGER NOT NULL,
    rate_limit_rpm    INTEGER,
    rate_limit_tpm    INTEGER,
    metadata          TEXT NOT NULL,
    created_at        INTEGER NOT NULL,
    deleted_at        INTEGER,
    limit_nano        INTEGER,
    reset_every_s     INTEGER,
    spent_nano        INTEGER NOT NULL,
    reserved_nano     INTEGER NOT NULL,
    period_started_at INTEGER,
    period_ends_at    INTEGER
);

-- name: schema_users_by_budget
CREATE INDEX IF NOT EXISTS users_by_budget ON users (budget_id) WHERE budget_id IS NOT NULL;

-- name: schema_budgets
CREATE TABLE IF NOT EXISTS budgets (
    id            TEXT NOT NULL PRIMARY KEY,
    name          TEXT,
    limit_nano    INTEGER NOT NULL,
    reset_every   TEXT,
    reset_every_s INTEGER,
    created_at    INTEGER NOT NULL
);

-- name: schema_prices
CREATE TABLE IF NOT EXISTS prices (
    id                       TEXT NOT NULL PRIMARY KEY,
    model                    TEXT NOT NULL,
    effective_at             INTEGER NOT NULL,
    input_per_million        TEXT NOT NULL,
    output_per_million       TEXT NOT NULL,
    cached_input_per_million TEXT,
    reasoning_per_million    TEXT,
    per_image                TEXT,
    per_request              TEXT,
    created_at               INTEGER NOT NULL,
    UNIQUE (model, effective_at)
);

-- name: schema_claims
CREATE TABLE IF NOT EXISTS claims (
    id          TEXT NOT NULL PRIMARY KEY,
    user_id     TEXT NOT NULL,
    amount_nano INTEGER NOT NULL,
    made_at     INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    swept       INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- name: schema_claims_by_expiry
CREATE INDEX IF NOT EXISTS claims_by_expiry ON claims (swept, expires_at);

-- name: schema_master_key
-- One row at most: it has the only id that there may be.
CREATE TABLE IF NOT EXISTS master_key (
    id          INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    secret_hash TEXT NOT NULL
);

-- name: insert_key
INSERT INTO api_keys (
    id, secret_hash, hint, user_id, name, created_at, expires_at, revoked_at, last_used_at, previous_hash,
    previous_expires_at, allowed_models, rate_limit_rpm, rate_limit_tpm, metadata
) VALUES (
    :id, :secret_hash, :hint, :user_id, :name, :created_at, :expires_at, :revoked_at, :last_used_at,
    :previous_hash, :previous_expires_at, :allowed_models, :rate_limit_rpm, :rate_limit_tpm, :metadata
);

-- name: insert_user
INSERT INTO users (
    id, alias, budget_id, blocked, rate_limit_rpm, rate_limit_tpm, metadata, created_at, deleted_at,
    limit_nano, reset_every_s, spent_nano, reserved_nano, period_started_at, period_ends_at
) VALUES (
    :id, :alias, :budget_id, :blocked, :rate_limit_rpm, :rate_limit_tpm, :metadata, :created_at, :deleted_at,
    :limit_nano, :reset_every_s, :spent_nano, :reserved_nano, :period_started_at, :period_ends_at
);

-- name: insert_budget
INSERT INTO budgets (id, name, limit_nano, reset_every, reset_every_s, created_at)
VALUES (:id, :name, :limit_nano, :reset_every, :reset_every_s, :created_at);

-- name: insert_price
INSERT INTO prices (
    id, model, effective_at, input_per_million, output_per_million, cached_input_per_million,
    reasoning_per_million, per_image, per_request, created_at
) VALUES (
    :id, :model, :effective_at, :input_per_million, :output_per_million, :cached_input_per_million,
    :reasoning_per_million, :per_image, :per_request, :created_at
);

-- name: same_secret
SELECT 1 FROM api_keys WHERE secret_hash = :secret_hash AND id <> :id;

-- name: same_price
SELECT 1 FROM prices WHERE model = :model AND effective_at = :effective_at AND id <> :id;

-- name: who_has_budget
SELECT 1 FROM users WHERE budget_id = :id AND deleted_at IS NULL LIMIT 1;

-- name: apply_budget
UPDATE users SET
    limit_nano = :limit_nano,
    reset_every_s = :reset_every_s,
    period_ends_at = period_started_at + 1000 * :reset_every_s
WHERE budget_id = :id;

-- name: find_key
SELECT * FROM api_keys WHERE secret_hash = :secret_hash OR previous_hash = :secret_hash;

-- name: touch_key
UPDATE api_keys SET last_used_at = :at WHERE id = :id AND (last_used_at IS NULL OR last_used_at < :at);

-- name: keep_master_key
INSERT INTO master_key (id, secret_hash) VALUES (1, :secret_hash) ON CONFLICT (id) DO NOTHING;

-- name: read_master_key
SELECT secret_hash FROM master_key;

-- name: set_account
UPDATE users SET
    limit_nano = :limit_nano,
    reset_every_s = :reset_every_s,
    spent_nano = :spent_nano,
    reserved_nano = :reserved_nano,
    period_started_at = :period_started_at,
    period_ends_at = :period_ends_at
WHERE id = :id;

-- name: hold_if_room
-- accounts.py in one conditional update: a period that is over ends, then there is room or nothing changes.
UPDATE users SET
    spent_nano = CASE WHEN period_ends_at <= :now AND reset_every_s IS NOT NULL THEN 0 ELSE spent_nano END,
    reserved_nano = reserved_nano + :amount_nano,
    period_started_at = CASE
        WHEN period_ends_at <= :now AND reset_every_s IS NOT NULL
        THEN :now - (:now - period_ends_at) % (1000 * reset_every_s)
        ELSE period_started_at
    END,
    period_ends_at = CASE
        WHEN period_ends_at <= :now AND reset_every_s IS NOT NULL
        THEN :now - (:now - period_ends_at) % (1000 * reset_every_s) + 1000 * reset_every_s
        ELSE period_ends_at
    END
WHERE id = :user_id AND deleted_at IS NULL AND NOT blocked AND CASE
    WHEN limit_nano IS NULL THEN reserved_nano <= :most_nano - :amount_nano
    WHEN period_ends_at <= :now AND reset_every_s IS NOT NULL
    THEN reserved_nano < limit_nano AND reserved_nano + :amount_nano <= limit_nano
    ELSE spent_nano + reserved_nano < limit_nano
        AND spent_nano + reserved_nano + :amount_nano <= limit_nano
END;

-- name: insert_claim
INSERT INTO claims (id, user_id, amount_nano, made_at, expires_at)
VALUES (:id, :user_id, :amount_nano, :made_at, :expires_at);

-- name: find_claim
SELECT user_id, amount_nano, made_at, swept FROM claims WHERE id = :id;

-- name: forget_claim
DELETE FROM claims WHERE id = :id;

-- name: free_expired
UPDATE users SET reserved_nano = reserved_nano - (
    SELECT sum(amount_nano) FROM claims
    WHERE user_id = users.id AND swept = 0 AND expires_at <= :now
)
WHERE id IN (
    SELECT user_id FROM claims
    WHERE swept = 0 AND expires_at <= :now AND user_id = coalesce(:user_id, user_id)
);

-- name: mark_swept
UPDATE claims SET swept = 1
WHERE swept = 0 AND expires_at <= :now AND user_id = coalesce(:user_id, user_id);

-- name: forget_swept
DELETE FROM claims WHERE swept = 1 AND expires_at <= :forgotten_at;
