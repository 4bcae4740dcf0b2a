-- What a spool's file holds. Bodies are JSON with a checksum; a row is in one batch, or, only journalled, in none.

-- name: schema_batches
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY,
    batch_id TEXT NOT NULL UNIQUE
) STRICT;

-- name: schema_rows
CREATE TABLE IF NOT EXISTS rows (
    row_id TEXT PRIMARY KEY,
    batch_id TEXT,
    place INTEGER NOT NULL,
    body BLOB NOT NULL,
    crc INTEGER NOT NULL
) STRICT;

-- name: schema_rows_by_batch
CREATE INDEX IF NOT EXISTS rows_by_batch ON rows (batch_id, place);

-- name: schema_intents
CREATE TABLE IF NOT EXISTS intents (
    row_id TEXT PRIMARY KEY,
    body BLOB NOT NULL,
    crc INTEGER NOT NULL
) STRICT;

-- name: schema_damaged
CREATE TABLE IF NOT EXISTS damaged (
    row_id TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- name: schema_owner
CREATE TABLE IF NOT EXISTS owner (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    boot_id TEXT NOT NULL
) STRICT;

-- name: sign
INSERT INTO owner (one, boot_id) VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET boot_id = excluded.boot_id;

-- name: owner
SELECT boot_id FROM owner;

-- name: keep_damaged
INSERT INTO damaged (row_id, body) VALUES (?, ?);

-- name: all_damaged
SELECT row_id, body FROM damaged;

-- name: keep_batch
INSERT INTO batches (batch_id) VALUES (?) ON CONFLICT (batch_id) DO NOTHING;

-- name: keep_row
INSERT INTO rows (row_id, batch_id, place, body, crc) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (row_id) DO UPDATE SET
    batch_id = coalesce(excluded.batch_id, batch_id), place = excluded.place,
    body = excluded.body, crc = excluded.crc;

-- name: keep_new_row
INSERT INTO rows (row_id, batch_id, place, body, crc) VALUES (?, ?, ?, ?, ?) ON CONFLICT (row_id) DO NOTHING;

-- name: keep_intent
INSERT INTO intents (row_id, body, crc) VALUES (?, ?, ?) ON CONFLICT (row_id) DO NOTHING;

-- name: drop_row
DELETE FROM rows WHERE row_id = ?;

-- name: drop_intent
DELETE FROM intents WHERE row_id = ?;

-- name: loosen_rows
UPDATE rows SET batch_id = NULL
WHERE batch_id IS NOT NULL AND batch_id NOT IN (SELECT batch_id FROM batches);

-- name: drop_empty_batches
DELETE FROM batches WHERE batch_id NOT IN (SELECT batch_id FROM rows WHERE batch_id IS NOT NULL);

-- name: drop_empty_batch
DELETE FROM batches
WHERE batch_id = ? AND NOT EXISTS (SELECT 1 FROM rows WHERE rows.batch_id = batches.batch_id);

-- name: next_batch
SELECT number, batch_id FROM batches WHERE number > ? ORDER BY number LIMIT 1;

-- name: rows_of_batch
SELECT row_id, body, crc FROM rows WHERE batch_id = ? ORDER BY place;

-- name: loose_rows
SELECT row_id FROM rows WHERE batch_id IS NULL ORDER BY rowid LIMIT ?;

-- name: put_in_batch
UPDATE rows SET batch_id = ?, place = ? WHERE row_id = ?;

-- name: all_intents
SELECT row_id, body, crc FROM intents;

-- name: all_rows
SELECT row_id, body, crc FROM rows;

-- name: some_rows
SELECT row_id, batch_id, place, body, crc FROM rows ORDER BY rowid LIMIT ?;

-- name: readable_rows
SELECT rowid, row_id, batch_id, place, body, crc FROM rows WHERE rowid > ? ORDER BY rowid;

-- name: readable_intents
SELECT rowid, row_id, NULL, 0, body, crc FROM intents WHERE rowid > ? ORDER BY rowid;

-- name: count
SELECT count(*) FROM rows;
