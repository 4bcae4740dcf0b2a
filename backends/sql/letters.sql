-- What a file of dead letters holds. Bodies are JSON with a checksum. Who wants a row to be sent again puts a
-- mark beside its letter, in a table of its own, so that marking many does not copy as many rows.

-- name: schema_letters
CREATE TABLE IF NOT EXISTS letters (
    number INTEGER PRIMARY KEY,
    row_id TEXT NOT NULL UNIQUE,
    boot_id TEXT,
    seq INTEGER NOT NULL,
    sink TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    at TEXT NOT NULL,
    body BLOB NOT NULL,
    crc INTEGER NOT NULL
) STRICT;

-- name: schema_marks
CREATE TABLE IF NOT EXISTS marks (
    number INTEGER PRIMARY KEY,
    row_id TEXT NOT NULL UNIQUE
) STRICT;

-- name: schema_boots
CREATE TABLE IF NOT EXISTS boots (
    boot_id TEXT PRIMARY KEY,
    started_at TEXT NOT NULL,
    closed_at TEXT,
    last_seq INTEGER,
    abandoned TEXT NOT NULL
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

-- name: has_tables
SELECT count(*) = 3 FROM sqlite_master WHERE type = 'table' AND name IN ('letters', 'marks', 'boots');

-- name: row_ids
SELECT row_id FROM letters;

-- name: add_letter
INSERT INTO letters (row_id, boot_id, seq, sink, code, message, attempts, at, body, crc)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (row_id) DO UPDATE SET
    sink = excluded.sink, code = excluded.code, message = excluded.message, at = excluded.at,
    attempts = attempts + excluded.attempts;

-- name: take_letter
INSERT INTO letters (row_id, boot_id, seq, sink, code, message, attempts, at, body, crc)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (row_id) DO NOTHING;

-- name: oldest_letters
SELECT
    row_id, boot_id, seq, sink, code, message, attempts, at, body, crc,
    row_id IN (SELECT row_id FROM marks) AS is_marked
FROM letters ORDER BY number LIMIT ?;

-- name: letters_after
SELECT
    number, row_id, boot_id, seq, sink, code, message, attempts, at, body, crc,
    row_id IN (SELECT row_id FROM marks) AS is_marked
FROM letters WHERE number > ? ORDER BY number LIMIT ?;

-- name: ids_with_code
SELECT row_id FROM letters WHERE code = ?;

-- name: marked
SELECT row_id, letters.body, letters.crc FROM marks JOIN letters USING (row_id) ORDER BY marks.number LIMIT ?;

-- name: mark
INSERT INTO marks (row_id) SELECT row_id FROM letters WHERE row_id = ? ON CONFLICT (row_id) DO NOTHING;

-- name: drop_letter
DELETE FROM letters WHERE row_id = ?;

-- name: drop_mark
DELETE FROM marks WHERE row_id = ?;

-- name: keep_boot
INSERT INTO boots (boot_id, started_at, closed_at, last_seq, abandoned) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (boot_id) DO UPDATE SET
    closed_at = excluded.closed_at, last_seq = excluded.last_seq, abandoned = excluded.abandoned;

-- name: boots
SELECT boot_id, started_at, closed_at, last_seq, abandoned FROM boots ORDER BY started_at;

-- name: drop_boot
DELETE FROM boots WHERE boot_id = ?;
