-- The PostgreSQL store's schema (version 1) and statements; loaded by statements.py. Money is in nano-dollars.
-- Whoever locks rows does so in one order, so that nobody waits for each other: the budget, then users by
-- ascending id, then claims. A user's claims change only under the lock of the user's row.
-- In braces are names of tables and columns, places of values, and the most that an account counts.

-- name: has_schema
-- Not to_regclass alone: only the lock on pg_class lets the server see a table that another process made just now.
SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('gateway_meta'));

-- name: schema_version
SELECT value::bigint FROM gateway_meta WHERE name = 'schema_version';

-- name: lock_schema
SELECT pg_advisory_xact_lock(hashtext('tallygate'), hashtext('gateway_meta'));

-- name: create_schema
-- Ids are compared byte by byte. metadata and allowed_models are json, not jsonb: they come back as they were
-- written, and prices are text, digit for digit. A budget that is gone may still be named by users that were
-- deleted, so there is no foreign key.
CREATE TABLE gateway_budgets (
    id            text COLLATE "C" NOT NULL PRIMARY KEY,
    name          text,
    limit_nano    bigint           NOT NULL,
    reset_every   text,
    reset_every_s bigint,
    created_at    timestamptz      NOT NULL
);
CREATE TABLE gateway_users (
    id                text COLLATE "C" NOT NULL PRIMARY KEY,
    alias             text,
    budget_id         text COLLATE "C",
    blocked           boolean          NOT NULL,
    rate_limit_rpm    bigint,
    rate_limit_tpm    bigint,
    metadata          json             NOT NULL,
    created_at        timestamptz      NOT NULL,
    deleted_at        timestamptz,
    limit_nano        bigint,
    reset_every_s     bigint,
    spent_nano        bigint           NOT NULL,
    reserved_nano     bigint           NOT NULL,
    period_started_at timestamptz,
    period_ends_at    timestamptz
);
CREATE INDEX ON gateway_users (budget_id, id);
CREATE TABLE gateway_keys (
    id                  text COLLATE "C" NOT NULL PRIMARY KEY,
    secret_hash         text COLLATE "C" NOT NULL,
    hint                text             NOT NULL,
    user_id             text COLLATE "C" NOT NULL,
    name                text,
    created_at          timestamptz      NOT NULL,
    expires_at          timestamptz,
    revoked_at          timestamptz,
    last_used_at        timestamptz,
    previous_hash       text COLLATE "C",
    previous_expires_at timestamptz,
    allowed_models      json,
    rate_limit_rpm      bigint,
    rate_limit_tpm      bigint,
    metadata            json             NOT NULL,
    CONSTRAINT gateway_keys_secret_hash UNIQUE (secret_hash)
);
CREATE INDEX ON gateway_keys (previous_hash) WHERE previous_hash IS NOT NULL;
CREATE INDEX ON gateway_keys (user_id, id);
CREATE TABLE gateway_prices (
    id                       text COLLATE "C" NOT NULL PRIMARY KEY,
    model                    text COLLATE "C" NOT NULL,
    effective_at             timestamptz      NOT NULL,
    input_per_million        text             NOT NULL,
    output_per_million       text             NOT NULL,
    cached_input_per_million text,
    reasoning_per_million    text,
    per_image                text,
    per_request              text,
    created_at               timestamptz      NOT NULL,
    CONSTRAINT gateway_prices_effective_at UNIQUE (model, effective_at)
);
CREATE TABLE gateway_claims (
    id          uuid             NOT NULL PRIMARY KEY,
    user_id     text COLLATE "C" NOT NULL,
    amount_nano bigint           NOT NULL,
    made_at     timestamptz      NOT NULL,
    expires_at  timestamptz      NOT NULL,
    swept       boolean          NOT NULL DEFAULT false
);
CREATE INDEX ON gateway_claims (expires_at) WHERE NOT swept;
CREATE INDEX ON gateway_claims (user_id, expires_at) WHERE NOT swept;
CREATE INDEX ON gateway_claims (expires_at) WHERE swept;
CREATE TABLE gateway_meta (
    name  text NOT NULL PRIMARY KEY,
    value text NOT NULL
);

-- name: note_version
INSERT INTO gateway_meta (name, value) VALUES ('schema_version', $1)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: probe
SELECT current_setting('transaction_read_only') = 'on';

-- name: add
INSERT INTO {table} ({names}) VALUES ({values});

-- name: get
SELECT {names} FROM {table} WHERE id = $1;

-- name: list
SELECT {names} FROM {table}{where} ORDER BY id LIMIT {limit};

-- name: update
UPDATE {table} SET {changes} WHERE id = $1 RETURNING {names};

-- name: remove
DELETE FROM {table} WHERE id = $1;

-- name: read_budget
-- Nobody changes or removes it until we are done.
SELECT limit_nano, reset_every_s FROM gateway_budgets WHERE id = $1 FOR SHARE;

-- name: lock_budget
SELECT 1 FROM gateway_budgets WHERE id = $1 FOR UPDATE;

-- name: is_budget_used
SELECT EXISTS (SELECT FROM gateway_users WHERE budget_id = $1 AND deleted_at IS NULL);

-- name: lock_users_of_budget
SELECT 1 FROM gateway_users WHERE budget_id = $1 ORDER BY id FOR UPDATE;

-- name: limit_users_of_budget
-- As accounts.limited says.
UPDATE gateway_users AS u SET
    limit_nano = b.limit_nano,
    reset_every_s = b.reset_every_s,
    period_ends_at = u.period_started_at + make_interval(secs => b.reset_every_s)
FROM gateway_budgets AS b
WHERE b.id = $1 AND u.budget_id = b.id;

-- name: find_key
SELECT {names}
FROM gateway_keys AS k JOIN gateway_users AS u ON u.id = k.user_id
WHERE k.secret_hash = $1 OR k.previous_hash = $1
ORDER BY k.secret_hash = $1 DESC, k.id
LIMIT 1;

-- name: touch_keys
WITH locked AS (
    SELECT id FROM gateway_keys WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE
)
UPDATE gateway_keys AS k SET last_used_at = used.at
FROM locked JOIN unnest($1::text[], $2::timestamptz[]) AS used (id, at) ON used.id = locked.id
WHERE k.id = locked.id AND (k.last_used_at IS NULL OR k.last_used_at < used.at);

-- name: keep_master_key
-- Not DO NOTHING: that would give no row where there is one.
INSERT INTO gateway_meta AS known (name, value) VALUES ('master_key_hash', $1)
ON CONFLICT (name) DO UPDATE SET value = known.value
RETURNING value;

-- name: hold_at_once
-- As Account.has_room_for says, for a period that is not over. The same claim at the same time is refused as
-- a duplicate, and with it all of this.
WITH account AS (
    UPDATE gateway_users SET reserved_nano = reserved_nano + $3
    WHERE id = $2 AND deleted_at IS NULL AND NOT blocked
        AND (period_ends_at IS NULL OR $4 < period_ends_at)
        AND CASE
            WHEN limit_nano IS NULL THEN reserved_nano <= {max_nano} - $3
            ELSE
                spent_nano::numeric + reserved_nano < limit_nano
                AND spent_nano::numeric + reserved_nano + $3 <= limit_nano
        END
        AND NOT EXISTS (SELECT FROM gateway_claims WHERE gateway_claims.id = $1)
    RETURNING id
)
INSERT INTO gateway_claims (id, user_id, amount_nano, made_at, expires_at)
SELECT $1, id, $3, $4, $5::timestamptz FROM account;

-- name: lock_account
SELECT
    blocked, limit_nano, reset_every_s, spent_nano, reserved_nano, period_started_at, period_ends_at
FROM gateway_users
WHERE id = $1 AND deleted_at IS NULL
FOR UPDATE;

-- name: is_known
SELECT EXISTS (SELECT FROM gateway_claims WHERE id = $1);

-- name: let_go
WITH expired AS (
    UPDATE gateway_claims SET swept = true
    WHERE user_id = $1 AND NOT swept AND expires_at <= $2
    RETURNING amount_nano
)
SELECT coalesce(sum(amount_nano), 0)::bigint FROM expired;

-- name: hold
-- A claim that is known changes nothing.
WITH new AS (
    INSERT INTO gateway_claims (id, user_id, amount_nano, made_at, expires_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (id) DO NOTHING
    RETURNING user_id
)
UPDATE gateway_users AS u SET
    spent_nano = $6, reserved_nano = $7, period_started_at = $8, period_ends_at = $9
FROM new
WHERE u.id = new.user_id;

-- name: keep_account
UPDATE gateway_users SET
    spent_nano = $2, reserved_nano = $3, period_started_at = $4, period_ends_at = $5
WHERE id = $1;

-- name: lock_claimants
SELECT id FROM gateway_users
WHERE id IN (SELECT user_id FROM gateway_claims WHERE id = ANY ($1::uuid[]))
ORDER BY id
FOR UPDATE;

-- name: settle
-- As Account.charged says. The users are locked, so what is seen here is how it is.
WITH settled AS (
    DELETE FROM gateway_claims AS c
    USING unnest($1::uuid[], $2::bigint[]) AS s (id, cost_nano)
    WHERE c.id = s.id AND c.user_id = ANY ($3::text[])
    RETURNING c.user_id, c.made_at, CASE WHEN c.swept THEN 0 ELSE c.amount_nano END AS held_nano, s.cost_nano
),
sums AS (
    SELECT
        u.id,
        sum(settled.held_nano)::bigint AS held_nano,
        coalesce(
            sum(settled.cost_nano) FILTER (
                WHERE u.period_started_at IS NULL OR settled.made_at >= u.period_started_at
            ),
            0
        ) AS cost_nano
    FROM settled JOIN gateway_users AS u ON u.id = settled.user_id
    GROUP BY u.id
)
UPDATE gateway_users AS u SET
    reserved_nano = u.reserved_nano - sums.held_nano,
    spent_nano = least(u.spent_nano + sums.cost_nano, {max_nano})::bigint
FROM sums
WHERE u.id = sums.id;

-- name: expired_claims
SELECT id FROM gateway_claims WHERE NOT swept AND expires_at <= $1 ORDER BY expires_at LIMIT $2;

-- name: sweep
WITH swept AS (
    UPDATE gateway_claims SET swept = true
    WHERE id = ANY ($1::uuid[]) AND NOT swept
    RETURNING user_id, amount_nano
),
sums AS (
    SELECT user_id, sum(amount_nano)::bigint AS held_nano FROM swept GROUP BY user_id
),
accounts AS (
    UPDATE gateway_users AS u SET reserved_nano = u.reserved_nano - sums.held_nano
    FROM sums
    WHERE u.id = sums.user_id
)
SELECT count(*) FROM swept;

-- name: forget
DELETE FROM gateway_claims WHERE id = ANY (ARRAY(
    SELECT id FROM gateway_claims
    WHERE swept AND expires_at <= $1
    ORDER BY expires_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
));

-- name: rebuild_spent
UPDATE gateway_users SET spent_nano = $2
WHERE id = $1 AND reserved_nano = 0
    AND limit_nano IS NOT DISTINCT FROM $3 AND reset_every_s IS NOT DISTINCT FROM $4
    AND spent_nano = $5 AND reserved_nano = $6
    AND period_started_at IS NOT DISTINCT FROM $7 AND period_ends_at IS NOT DISTINCT FROM $8;
