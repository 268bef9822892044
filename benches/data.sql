-- The benchmark's data: rows whose entropy is that of a real application (hashes, words, numbers, times, json), about
-- 420 bytes a row. pgbench's own tables compress 35:1 and prove nothing. Variable: rows.
\set ON_ERROR_STOP on
CREATE TABLE accounts AS
SELECT n AS account_id,
       format('person.%s@mail.test', n) AS email,
       sha256(n::text::bytea) AS password_hash,
       timestamptz '2024-01-01' + n * interval '37 seconds' AS created_at
FROM generate_series(1, :rows / 20) AS n;
ALTER TABLE accounts ADD PRIMARY KEY (account_id);

CREATE TABLE grants AS
SELECT n AS grant_id,
       1 + (n::bigint * 7919) % (:rows / 20) AS account_id,
       format('Grant %s: %s', n % 811, (ARRAY['harbour', 'lantern', 'meadow', 'granite', 'willow'])[1 + n % 5]) AS title,
       encode(sha256((n * 3)::text::bytea), 'hex') AS fingerprint,
       round((random() * 1000)::numeric, 2) AS amount,
       timestamptz '2024-01-01' + random() * interval '900 days' AS decided_at,
       jsonb_build_object('round', n % 17, 'labels', ARRAY['l' || n % 89, 'l' || n % 41], 'ref', md5((n * 11)::text)) AS meta
FROM generate_series(1, :rows) AS n;
ALTER TABLE grants ADD PRIMARY KEY (grant_id);
CREATE INDEX ON grants (account_id);
CREATE INDEX ON grants (decided_at);

CREATE TABLE letters AS
SELECT n AS letter_id, n AS grant_id, n % 3 AS kind,
       encode(sha256(random()::text::bytea) || sha256(random()::text::bytea) || sha256(random()::text::bytea)
              || sha256(random()::text::bytea) || sha256(random()::text::bytea), 'base64') AS body
FROM generate_series(1, :rows / 3) AS n;
ALTER TABLE letters ADD PRIMARY KEY (letter_id);
VACUUM ANALYZE;
