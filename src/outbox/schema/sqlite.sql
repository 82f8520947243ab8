-- Events that wait for the relay, and those that the bus would not take.
-- A row written by hand or by a trigger needs `type` and `payload` (JSON), and wants a `key`.
CREATE TABLE IF NOT EXISTS "outbox" (
    -- The order of writing. AUTOINCREMENT: a number is never given twice.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE DEFAULT (lower(
        hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
        || '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))
    )),
    type TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1,
    -- RFC 3339, in UTC.
    time TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    content_type TEXT NOT NULL DEFAULT 'application/json',
    payload BLOB NOT NULL,
    "key" TEXT,
    source TEXT NOT NULL DEFAULT '',
    expires TEXT,
    traceparent TEXT,
    correlation_id TEXT,
    causation_id TEXT,
    -- A JSON object of texts.
    headers TEXT NOT NULL DEFAULT '{}',
    -- Why the row is set aside; NULL: it waits.
    error TEXT
);
CREATE INDEX IF NOT EXISTS "outbox_waiting" ON "outbox" (number) WHERE error IS NULL;

-- Which relay works, and until when (milliseconds since 1970): one row.
CREATE TABLE IF NOT EXISTS "outbox_relay" (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    relay TEXT NOT NULL,
    until INTEGER NOT NULL
);
