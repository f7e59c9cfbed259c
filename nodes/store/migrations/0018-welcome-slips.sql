-- Who is told when a Welcome does not arrive that this node wrote as a hub, for a committer of another node (docs:
-- protocol/federation, "Return slips").

-- Domain of the committer's node; NULL: nobody is told, or `sender` says whom.
ALTER TABLE outbox ADD COLUMN return_to TEXT;
-- What that node gave along: for each device its key (32 bytes) and a slip that only that node can read (52 bytes).
ALTER TABLE outbox ADD COLUMN return_slips BLOB;
