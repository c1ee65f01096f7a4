SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE SCHEMA jobrunner;

CREATE FUNCTION jobrunner.round_2(p_now bigint, d_seq bigint[], d_lease bigint[], d_worker bigint, d_at bigint[], d_result text[], d_omitted text[], p_promote boolean, n_state text[], n_id text[], n_task text[], n_queue text[], n_args text[], n_created_at bigint[], n_run_at bigint[], n_priority bigint[], n_expires_at bigint[], n_max_attempts bigint[], n_timeout bigint[], n_tag text[], n_replay_of text[], n_schedule text[], n_scheduled_for bigint[], n_chain text[], n_after text[], n_trace text[], n_on_dead text[], c_worker bigint, c_must_stand boolean, c_queues text[], c_free bigint[], c_tasks text[], c_suspects boolean, p_ticks_of text[]) RETURNS TABLE(seq bigint, lease bigint, worker bigint, id text, task text, queue text, args text, attempt bigint, started_at bigint, first_started_at bigint, created_at bigint, run_at bigint, priority bigint, max_attempts bigint, timeout bigint, suspect boolean, scheduled_for bigint, chain text, trace text, lane text, batch bigint, handed text, settled bigint[], promoted bigint, next_due bigint, next_tick bigint)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    r_settled bigint[];
    r_promoted bigint := 0;
    r_next_due bigint;
    r_next_tick bigint;
    known text[];
    room bigint;
    got bigint;
    deep bigint;
    depth bigint;
    most bigint;
    ranked bigint[];
BEGIN
    IF EXISTS (SELECT FROM jobrunner.limits WHERE scope > 'lane')
        OR EXISTS (SELECT FROM jobrunner.lanes WHERE state = 'open')
        OR c_suspects AND EXISTS (
            SELECT FROM jobrunner.jobs WHERE state = 'queued' AND suspect AND queue = ANY (c_queues)
        )
        OR p_promote AND (
            EXISTS (SELECT FROM jobrunner.followups) -- of 0003
            OR EXISTS (
                SELECT FROM jobrunner.jobs
                WHERE expires_at <= p_now AND expires_at IS NOT NULL AND state IN ('queued', 'scheduled')
            )
            OR EXISTS (SELECT FROM jobrunner.lanes WHERE state = 'empty' AND wake_at <= p_now)
            OR EXISTS (
                SELECT FROM (
                    SELECT lane FROM jobrunner.jobs WHERE state = 'scheduled' AND run_at <= p_now
                    ORDER BY run_at LIMIT 500
                ) due WHERE lane IS NOT NULL
            )
        )
    THEN
        RETURN;
    END IF;

    IF d_seq IS NOT NULL THEN
        -- No join: of a table that was nearly empty at the last ANALYZE the planner would read all rows for each of ours.
        WITH done AS (
            UPDATE jobrunner.jobs job SET state = 'succeeded', worker = NULL, suspect = false,
                finished_at = d_at[array_position(d_seq, job.seq)],
                result = CASE WHEN d_result IS NOT NULL THEN d_result[array_position(d_seq, job.seq)] END,
                result_omitted = CASE WHEN d_omitted IS NOT NULL THEN d_omitted[array_position(d_seq, job.seq)] END
            WHERE job.seq = ANY (d_seq) AND job.lease = d_lease[array_position(d_seq, job.seq)]
                AND job.worker = d_worker
            RETURNING job.seq, job.lease, job.attempt, d_worker, job.started_at, job.finished_at
        ), kept AS (
            INSERT INTO jobrunner.attempts (job, lease, attempt, worker, started_at, finished_at, outcome)
            SELECT *, 'succeeded' FROM done
        )
        SELECT array_agg(done.seq) INTO r_settled FROM done;
    END IF;

    IF p_promote THEN
        UPDATE jobrunner.jobs SET state = 'queued' WHERE state || '' = 'scheduled' AND seq = ANY (ARRAY(
            SELECT seq FROM jobrunner.jobs WHERE state = 'scheduled' AND run_at <= p_now AND lane IS NULL
            ORDER BY run_at LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED
        ));
        GET DIAGNOSTICS r_promoted = ROW_COUNT;
    END IF;

    IF n_id IS NOT NULL THEN
        INSERT INTO jobrunner.jobs (
            state, id, task, queue, args, created_at, run_at, priority, expires_at, max_attempts, timeout, tag,
            replay_of, schedule, scheduled_for, chain, after, trace, on_dead
        )
        SELECT state, id, task, queue, args, created_at, run_at, priority, expires_at, max_attempts, timeout, tag,
            replay_of, schedule, scheduled_for, chain, after, trace, on_dead
        FROM unnest(
            n_state, n_id, n_task, n_queue, n_args, n_created_at, n_run_at, n_priority, n_expires_at, n_max_attempts,
            n_timeout, n_tag, n_replay_of, n_schedule, n_scheduled_for, n_chain, n_after, n_trace, n_on_dead
        ) WITH ORDINALITY AS new (
            state, id, task, queue, args, created_at, run_at, priority, expires_at, max_attempts, timeout, tag,
            replay_of, schedule, scheduled_for, chain, after, trace, on_dead, number
        ) ORDER BY number;
    END IF;

    -- The lock on its row holds off whoever found the worker dead, until the commit; without a row it claims nothing.
    IF c_queues IS NOT NULL THEN
        PERFORM FROM jobrunner.workers row WHERE row.worker = c_worker FOR KEY SHARE;
    END IF;
    IF c_queues IS NOT NULL AND (FOUND OR NOT c_must_stand) THEN
        FOR n IN 1 .. cardinality(c_queues) LOOP
            CONTINUE WHEN EXISTS (SELECT FROM jobrunner.paused_queues paused WHERE paused.queue = c_queues[n]);
            known := c_tasks;
            IF cardinality(known) > 1 THEN
                SELECT array_agg(wanted.task) INTO known FROM unnest(c_tasks) AS wanted (task), LATERAL (
                    SELECT FROM jobrunner.jobs job
                    WHERE job.state = 'queued' AND NOT job.suspect AND job.lane IS NULL AND job.queue = c_queues[n]
                        AND job.task = wanted.task LIMIT 1
                ) AS first;
            END IF;
            CONTINUE WHEN known IS NULL;
            room := c_free[n];
            IF cardinality(known) = 1 THEN
                RETURN QUERY UPDATE jobrunner.jobs job SET state = 'running', worker = c_worker,
                    attempt = job.attempt + 1, lease = job.lease + 1, started_at = p_now,
                    first_started_at = coalesce(job.first_started_at, p_now)
                WHERE job.seq = ANY (ARRAY(
                    SELECT seq FROM jobrunner.jobs
                    WHERE state = 'queued' AND NOT suspect AND lane IS NULL AND queue = c_queues[n] AND task = known[1]
                        AND (expires_at IS NULL OR expires_at > p_now)
                    ORDER BY priority DESC, run_at, seq LIMIT room FOR NO KEY UPDATE SKIP LOCKED
                ))
                RETURNING job.seq, job.lease, job.worker, job.id, job.task, job.queue, job.args, job.attempt,
                    job.started_at, job.first_started_at, job.created_at, job.run_at, job.priority, job.max_attempts,
                    job.timeout, job.suspect, job.scheduled_for, job.chain, job.trace, job.lane, job.batch, job.handed,
                    NULL::bigint[], NULL::bigint, NULL::bigint, NULL::bigint;
                CONTINUE;
            END IF;
            deep := room + 20; -- others may hold the first ones
            depth := greatest(4, 4 * deep / cardinality(known));
            LOOP
                -- Ranked without locks. So many of each task, unless one of them takes up its share.
                SELECT array_agg(top.seq), max(top.place) INTO ranked, most FROM (
                    SELECT first.seq, first.place FROM unnest(known) AS wanted (task), LATERAL (
                        SELECT seq, priority, run_at, row_number() OVER (ORDER BY priority DESC, run_at, seq) AS place
                        FROM jobrunner.jobs job
                        WHERE job.state = 'queued' AND NOT job.suspect AND job.lane IS NULL
                            AND job.queue = c_queues[n] AND job.task = wanted.task
                            AND (expires_at IS NULL OR expires_at > p_now)
                        ORDER BY priority DESC, run_at, seq LIMIT depth
                    ) AS first
                    ORDER BY first.priority DESC, first.run_at, first.seq LIMIT deep
                ) AS top;
                IF most >= depth AND depth < deep THEN
                    depth := depth * 4;
                    CONTINUE;
                END IF;
                RETURN QUERY UPDATE jobrunner.jobs job SET state = 'running', worker = c_worker,
                    attempt = job.attempt + 1, lease = job.lease + 1, started_at = p_now,
                    first_started_at = coalesce(job.first_started_at, p_now)
                WHERE job.seq = ANY (ARRAY(
                    SELECT seq FROM jobrunner.jobs
                    WHERE seq = ANY (ranked) AND state || '' = 'queued' AND NOT suspect AND lane IS NULL
                    ORDER BY priority DESC, run_at, seq LIMIT room FOR NO KEY UPDATE SKIP LOCKED
                ))
                RETURNING job.seq, job.lease, job.worker, job.id, job.task, job.queue, job.args, job.attempt,
                    job.started_at, job.first_started_at, job.created_at, job.run_at, job.priority, job.max_attempts,
                    job.timeout, job.suspect, job.scheduled_for, job.chain, job.trace, job.lane, job.batch, job.handed,
                    NULL::bigint[], NULL::bigint, NULL::bigint, NULL::bigint;
                GET DIAGNOSTICS got = ROW_COUNT;
                room := room - got;
                -- Others hold what was ranked first, unless there is no more.
                EXIT WHEN room <= 0 OR deep >= 5000 OR coalesce(cardinality(ranked), 0) < deep;
                deep := deep * 4;
            END LOOP;
        END LOOP;
    END IF;

    IF p_promote THEN
        SELECT least(
            (SELECT min(run_at) FROM jobrunner.jobs WHERE state = 'scheduled'),
            (SELECT min(expires_at) FROM jobrunner.jobs
                WHERE expires_at IS NOT NULL AND state IN ('queued', 'scheduled')),
            (SELECT min(wake_at) FROM jobrunner.lanes WHERE state = 'empty')
        ) INTO r_next_due;
    END IF;
    IF p_ticks_of IS NOT NULL THEN
        SELECT min(first.next) INTO r_next_tick FROM unnest(p_ticks_of) AS wanted (task), LATERAL (
            SELECT next FROM jobrunner.schedules
            WHERE next IS NOT NULL AND NOT paused AND NOT disabled AND task = wanted.task ORDER BY next LIMIT 1
        ) AS first;
    END IF;
    RETURN QUERY SELECT NULL::bigint, NULL::bigint, NULL::bigint, NULL, NULL, NULL, NULL, NULL::bigint, NULL::bigint,
        NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
        NULL::boolean, NULL::bigint, NULL, NULL, NULL, NULL::bigint, NULL,
        CASE WHEN cardinality(r_settled) = cardinality(d_seq) THEN NULL ELSE coalesce(r_settled, '{}') END,
        r_promoted, r_next_due, r_next_tick;
END $$;

CREATE FUNCTION jobrunner.round_4(p_now bigint, d_seq bigint[], d_lease bigint[], d_worker bigint, d_at bigint[], d_result text[], d_omitted text[], p_promote boolean, n_state text[], n_id text[], n_task text[], n_queue text[], n_args text[], n_created_at bigint[], n_run_at bigint[], n_priority bigint[], n_expires_at bigint[], n_max_attempts bigint[], n_timeout bigint[], n_tag text[], n_replay_of text[], n_schedule text[], n_scheduled_for bigint[], n_chain text[], n_after text[], n_trace text[], n_on_dead text[], c_worker bigint, c_must_stand boolean, c_queues text[], c_free bigint[], c_tasks text[], c_suspects boolean, p_ticks_of text[]) RETURNS TABLE(seq bigint, lease bigint, worker bigint, id text, task text, queue text, args text, attempt bigint, started_at bigint, first_started_at bigint, created_at bigint, run_at bigint, priority bigint, max_attempts bigint, timeout bigint, suspect boolean, scheduled_for bigint, chain text, trace text, lane text, batch bigint, handed text, settled bigint[], promoted bigint, next_due bigint, next_tick bigint)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
    r_settled bigint[];
    r_promoted bigint := 0;
    r_next_due bigint;
    r_next_tick bigint;
    known text[];
    room bigint;
    got bigint;
    deep bigint;
    depth bigint;
    most bigint;
    ranked bigint[];
BEGIN
    IF EXISTS (SELECT FROM jobrunner.limits WHERE scope > 'lane')
        OR EXISTS (SELECT FROM jobrunner.lanes WHERE state = 'open')
        OR c_suspects AND EXISTS (
            SELECT FROM jobrunner.jobs WHERE state = 'queued' AND suspect AND queue = ANY (c_queues)
        )
        OR p_promote AND (
            EXISTS (SELECT FROM jobrunner.followups) -- of 0003
            OR EXISTS (
                SELECT FROM jobrunner.jobs
                WHERE expires_at <= p_now AND expires_at IS NOT NULL AND state IN ('queued', 'scheduled')
            )
            OR EXISTS (SELECT FROM jobrunner.lanes WHERE state = 'empty' AND wake_at <= p_now)
            OR EXISTS (
                SELECT FROM (
                    SELECT lane FROM jobrunner.jobs WHERE state = 'scheduled' AND run_at <= p_now
                    ORDER BY run_at LIMIT 500
                ) due WHERE lane IS NOT NULL
            )
        )
    THEN
        RETURN;
    END IF;

    IF d_seq IS NOT NULL THEN
        -- No join: of a table that was nearly empty at the last ANALYZE the planner would read all rows for each of ours.
        WITH done AS (
            UPDATE jobrunner.jobs job SET state = 'succeeded', worker = NULL, suspect = false,
                finished_at = d_at[width_bucket(job.seq, d_seq)],
                result = CASE WHEN d_result IS NOT NULL THEN d_result[width_bucket(job.seq, d_seq)] END,
                result_omitted = CASE WHEN d_omitted IS NOT NULL THEN d_omitted[width_bucket(job.seq, d_seq)] END
            WHERE job.seq = ANY (d_seq) AND job.lease = d_lease[width_bucket(job.seq, d_seq)]
                AND job.worker = d_worker
            RETURNING job.seq, job.lease, job.attempt, d_worker, job.started_at, job.finished_at
        ), kept AS (
            INSERT INTO jobrunner.attempts (job, lease, attempt, worker, started_at, finished_at, outcome)
            SELECT *, 'succeeded' FROM done
        )
        SELECT array_agg(done.seq) INTO r_settled FROM done;
    END IF;

    IF p_promote THEN
        UPDATE jobrunner.jobs SET state = 'queued' WHERE state || '' = 'scheduled' AND seq = ANY (ARRAY(
            SELECT seq FROM jobrunner.jobs WHERE state = 'scheduled' AND run_at <= p_now AND lane IS NULL
            ORDER BY run_at LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED
        ));
        GET DIAGNOSTICS r_promoted = ROW_COUNT;
    END IF;

    IF n_id IS NOT NULL THEN
        INSERT INTO jobrunner.jobs (
            state, id, task, queue, args, created_at, run_at, priority, expires_at, max_attempts, timeout, tag,
            replay_of, schedule, scheduled_for, chain, after, trace, on_dead
        )
        SELECT state, id, task, queue, args, created_at, run_at, priority, expires_at, max_attempts, timeout, tag,
            replay_of, schedule, scheduled_for, chain, after, trace, on_dead
        FROM unnest(
            n_state, n_id, n_task, n_queue, n_args, n_created_at, n_run_at, n_priority, n_expires_at, n_max_attempts,
            n_timeout, n_tag, n_replay_of, n_schedule, n_scheduled_for, n_chain, n_after, n_trace, n_on_dead
        ) WITH ORDINALITY AS new (
            state, id, task, queue, args, created_at, run_at, priority, expires_at, max_attempts, timeout, tag,
            replay_of, schedule, scheduled_for, chain, after, trace, on_dead, number
        ) ORDER BY number;
    END IF;

    -- The lock on its row holds off whoever found the worker dead, until the commit; without a row it claims nothing.
    IF c_queues IS NOT NULL THEN
        PERFORM FROM jobrunner.workers row WHERE row.worker = c_worker FOR KEY SHARE;
    END IF;
    IF c_queues IS NOT NULL AND (FOUND OR NOT c_must_stand) THEN
        FOR n IN 1 .. cardinality(c_queues) LOOP
            CONTINUE WHEN EXISTS (SELECT FROM jobrunner.paused_queues paused WHERE paused.queue = c_queues[n]);
            known := c_tasks;
            IF cardinality(known) > 1 THEN
                SELECT array_agg(wanted.task) INTO known FROM unnest(c_tasks) AS wanted (task), LATERAL (
                    SELECT FROM jobrunner.jobs job
                    WHERE job.state = 'queued' AND NOT job.suspect AND job.lane IS NULL AND job.queue = c_queues[n]
                        AND job.task = wanted.task LIMIT 1
                ) AS first;
            END IF;
            CONTINUE WHEN known IS NULL;
            room := c_free[n];
            IF cardinality(known) = 1 THEN
                RETURN QUERY UPDATE jobrunner.jobs job SET state = 'running', worker = c_worker,
                    attempt = job.attempt + 1, lease = job.lease + 1, started_at = p_now,
                    first_started_at = coalesce(job.first_started_at, p_now)
                WHERE job.seq = ANY (ARRAY(
                    SELECT seq FROM jobrunner.jobs
                    WHERE state = 'queued' AND NOT suspect AND lane IS NULL AND queue = c_queues[n] AND task = known[1]
                        AND (expires_at IS NULL OR expires_at > p_now)
                    ORDER BY priority DESC, run_at, seq LIMIT room FOR NO KEY UPDATE SKIP LOCKED
                ))
                RETURNING job.seq, job.lease, job.worker, job.id, job.task, job.queue, job.args, job.attempt,
                    job.started_at, job.first_started_at, job.created_at, job.run_at, job.priority, job.max_attempts,
                    job.timeout, job.suspect, job.scheduled_for, job.chain, job.trace, job.lane, job.batch, job.handed,
                    NULL::bigint[], NULL::bigint, NULL::bigint, NULL::bigint;
                CONTINUE;
            END IF;
            deep := room + 20; -- others may hold the first ones
            depth := greatest(4, 4 * deep / cardinality(known));
            LOOP
                -- Ranked without locks. So many of each task, unless one of them takes up its share.
                SELECT array_agg(top.seq), max(top.place) INTO ranked, most FROM (
                    SELECT first.seq, first.place FROM unnest(known) AS wanted (task), LATERAL (
                        SELECT seq, priority, run_at, row_number() OVER (ORDER BY priority DESC, run_at, seq) AS place
                        FROM jobrunner.jobs job
                        WHERE job.state = 'queued' AND NOT job.suspect AND job.lane IS NULL
                            AND job.queue = c_queues[n] AND job.task = wanted.task
                            AND (expires_at IS NULL OR expires_at > p_now)
                        ORDER BY priority DESC, run_at, seq LIMIT depth
                    ) AS first
                    ORDER BY first.priority DESC, first.run_at, first.seq LIMIT deep
                ) AS top;
                IF most >= depth AND depth < deep THEN
                    depth := depth * 4;
                    CONTINUE;
                END IF;
                RETURN QUERY UPDATE jobrunner.jobs job SET state = 'running', worker = c_worker,
                    attempt = job.attempt + 1, lease = job.lease + 1, started_at = p_now,
                    first_started_at = coalesce(job.first_started_at, p_now)
                WHERE job.seq = ANY (ARRAY(
                    SELECT seq FROM jobrunner.jobs
                    WHERE seq = ANY (ranked) AND state || '' = 'queued' AND NOT suspect AND lane IS NULL
                    ORDER BY priority DESC, run_at, seq LIMIT room FOR NO KEY UPDATE SKIP LOCKED
                ))
                RETURNING job.seq, job.lease, job.worker, job.id, job.task, job.queue, job.args, job.attempt,
                    job.started_at, job.first_started_at, job.created_at, job.run_at, job.priority, job.max_attempts,
                    job.timeout, job.suspect, job.scheduled_for, job.chain, job.trace, job.lane, job.batch, job.handed,
                    NULL::bigint[], NULL::bigint, NULL::bigint, NULL::bigint;
                GET DIAGNOSTICS got = ROW_COUNT;
                room := room - got;
                -- Others hold what was ranked first, unless there is no more.
                EXIT WHEN room <= 0 OR deep >= 5000 OR coalesce(cardinality(ranked), 0) < deep;
                deep := deep * 4;
            END LOOP;
        END LOOP;
    END IF;

    IF p_promote THEN
        SELECT least(
            (SELECT min(run_at) FROM jobrunner.jobs WHERE state = 'scheduled'),
            (SELECT min(expires_at) FROM jobrunner.jobs
                WHERE expires_at IS NOT NULL AND state IN ('queued', 'scheduled')),
            (SELECT min(wake_at) FROM jobrunner.lanes WHERE state = 'empty')
        ) INTO r_next_due;
    END IF;
    IF p_ticks_of IS NOT NULL THEN
        SELECT min(first.next) INTO r_next_tick FROM unnest(p_ticks_of) AS wanted (task), LATERAL (
            SELECT next FROM jobrunner.schedules
            WHERE next IS NOT NULL AND NOT paused AND NOT disabled AND task = wanted.task ORDER BY next LIMIT 1
        ) AS first;
    END IF;
    RETURN QUERY SELECT NULL::bigint, NULL::bigint, NULL::bigint, NULL, NULL, NULL, NULL, NULL::bigint, NULL::bigint,
        NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
        NULL::boolean, NULL::bigint, NULL, NULL, NULL, NULL::bigint, NULL,
        CASE WHEN cardinality(r_settled) = cardinality(d_seq) THEN NULL ELSE coalesce(r_settled, '{}') END,
        r_promoted, r_next_due, r_next_tick;
END $$;

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE jobrunner.attempts (
    job bigint NOT NULL,
    lease bigint NOT NULL,
    attempt bigint NOT NULL,
    worker bigint NOT NULL,
    started_at bigint NOT NULL,
    finished_at bigint NOT NULL,
    outcome text NOT NULL COLLATE pg_catalog."C",
    error_type text,
    error text,
    traceback text,
    CONSTRAINT attempts_outcome_check CHECK ((outcome = ANY (ARRAY['succeeded'::text, 'failed'::text, 'timed_out'::text, 'snoozed'::text, 'cancelled'::text, 'released'::text, 'lost'::text])))
);

CREATE TABLE jobrunner.audit (
    entry bigint NOT NULL,
    at bigint NOT NULL,
    actor text NOT NULL COLLATE pg_catalog."C",
    action text NOT NULL COLLATE pg_catalog."C",
    target text,
    filter text,
    count bigint,
    reason text,
    CONSTRAINT audit_reason_check CHECK ((length(reason) <= 500))
);

ALTER TABLE jobrunner.audit ALTER COLUMN entry ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME jobrunner.audit_entry_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE jobrunner.batches (
    seq bigint NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C",
    name text COLLATE pg_catalog."C",
    state text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    ended_at bigint,
    cancelled_at bigint,
    parent text COLLATE pg_catalog."C",
    deleted bigint DEFAULT 0 NOT NULL,
    CONSTRAINT batches_check CHECK (((ended_at IS NULL) = (state = 'running'::text))),
    CONSTRAINT batches_state_check CHECK ((state = ANY (ARRAY['running'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text])))
);

ALTER TABLE jobrunner.batches ALTER COLUMN seq ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME jobrunner.batches_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE jobrunner.buckets (
    scope text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    full_at bigint NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE jobrunner.counters (
    counter bigint NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    task text NOT NULL COLLATE pg_catalog."C",
    number bigint NOT NULL
)
WITH (fillfactor='50');

ALTER TABLE jobrunner.counters ALTER COLUMN counter ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME jobrunner.counters_counter_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE jobrunner.dead_letters (
    letter bigint NOT NULL,
    seq bigint NOT NULL,
    lease bigint NOT NULL,
    created_at bigint NOT NULL,
    run_at bigint NOT NULL,
    started_at bigint,
    first_started_at bigint,
    died_at bigint NOT NULL,
    expires_at bigint,
    timeout bigint,
    scheduled_for bigint,
    priority bigint NOT NULL,
    attempt bigint NOT NULL,
    max_attempts bigint,
    crashes bigint NOT NULL,
    replays bigint NOT NULL,
    ordered boolean,
    id text NOT NULL COLLATE pg_catalog."C",
    task text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    args text NOT NULL,
    key text COLLATE pg_catalog."C",
    tag text COLLATE pg_catalog."C",
    replay_of text COLLATE pg_catalog."C",
    schedule text COLLATE pg_catalog."C",
    chain text COLLATE pg_catalog."C",
    after text COLLATE pg_catalog."C",
    trace text,
    lane text COLLATE pg_catalog."C",
    batch bigint,
    handed text,
    on_dead text COLLATE pg_catalog."C",
    reason text NOT NULL COLLATE pg_catalog."C",
    error_type text,
    error text,
    traceback text,
    replayed_as text COLLATE pg_catalog."C",
    fingerprint text COLLATE pg_catalog."C",
    CONSTRAINT dead_letters_on_dead_check CHECK ((on_dead = 'cancel'::text)),
    CONSTRAINT dead_letters_reason_check CHECK ((reason = ANY (ARRAY['exhausted'::text, 'buried'::text, 'not_retryable'::text, 'lost'::text, 'unknown_task'::text, 'invalid_args'::text])))
);

ALTER TABLE jobrunner.dead_letters ALTER COLUMN letter ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME jobrunner.dead_letters_letter_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE jobrunner.edges (
    job text NOT NULL COLLATE pg_catalog."C",
    needs text NOT NULL COLLATE pg_catalog."C",
    need text NOT NULL COLLATE pg_catalog."C",
    state integer NOT NULL,
    CONSTRAINT edges_need_check CHECK ((need = ANY (ARRAY['success'::text, 'end'::text, 'failure'::text]))),
    CONSTRAINT edges_state_check CHECK ((state = ANY (ARRAY['-1'::integer, 0, 1, 2])))
);

CREATE TABLE jobrunner.followups (
    id text NOT NULL COLLATE pg_catalog."C",
    batch bigint
);

CREATE TABLE jobrunner.hours (
    start bigint NOT NULL,
    task text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    succeeded bigint NOT NULL,
    failed bigint NOT NULL,
    dead bigint NOT NULL,
    wait bytea NOT NULL,
    run bytea NOT NULL
);

CREATE TABLE jobrunner.jobs (
    seq bigint NOT NULL,
    lease bigint DEFAULT 0 NOT NULL,
    worker bigint,
    created_at bigint NOT NULL,
    run_at bigint NOT NULL,
    started_at bigint,
    first_started_at bigint,
    finished_at bigint,
    expires_at bigint,
    timeout bigint,
    scheduled_for bigint,
    priority bigint NOT NULL,
    attempt bigint DEFAULT 0 NOT NULL,
    max_attempts bigint,
    crashes bigint DEFAULT 0 NOT NULL,
    replays bigint DEFAULT 0 NOT NULL,
    cancel_requested boolean DEFAULT false NOT NULL,
    suspect boolean DEFAULT false NOT NULL,
    ordered boolean,
    id text NOT NULL COLLATE pg_catalog."C",
    task text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    state text NOT NULL COLLATE pg_catalog."C",
    args text NOT NULL,
    result text,
    result_omitted text,
    key text COLLATE pg_catalog."C",
    tag text COLLATE pg_catalog."C",
    replay_of text COLLATE pg_catalog."C",
    schedule text COLLATE pg_catalog."C",
    chain text COLLATE pg_catalog."C",
    after text COLLATE pg_catalog."C",
    trace text,
    lane text COLLATE pg_catalog."C",
    batch bigint,
    handed text,
    on_dead text COLLATE pg_catalog."C",
    CONSTRAINT jobs_attempt_check CHECK ((attempt >= 0)),
    CONSTRAINT jobs_check CHECK (((worker IS NOT NULL) = (state = 'running'::text))),
    CONSTRAINT jobs_lease_check CHECK ((lease >= 0)),
    CONSTRAINT jobs_on_dead_check CHECK ((on_dead = 'cancel'::text)),
    CONSTRAINT jobs_state_check CHECK ((state = ANY (ARRAY['queued'::text, 'running'::text, 'succeeded'::text, 'scheduled'::text, 'blocked'::text, 'cancelled'::text, 'expired'::text])))
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_cost_delay='0', autovacuum_analyze_scale_factor='0.05', autovacuum_vacuum_insert_scale_factor='0.2');

ALTER TABLE jobrunner.jobs ALTER COLUMN seq ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME jobrunner.jobs_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE jobrunner.lane_locks (
    lane text NOT NULL COLLATE pg_catalog."C"
);

CREATE TABLE jobrunner.lanes (
    id bigint NOT NULL,
    lane text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    task text NOT NULL COLLATE pg_catalog."C",
    ordered boolean NOT NULL,
    priority bigint NOT NULL,
    turn bigint NOT NULL,
    state text NOT NULL COLLATE pg_catalog."C",
    wake_at bigint,
    CONSTRAINT lanes_check CHECK (((wake_at IS NOT NULL) = (state = 'empty'::text))),
    CONSTRAINT lanes_state_check CHECK ((state = ANY (ARRAY['open'::text, 'full'::text, 'empty'::text])))
);

ALTER TABLE jobrunner.lanes ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME jobrunner.lanes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE jobrunner.limits (
    scope text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    concurrency bigint,
    rate bigint,
    per bigint,
    burst bigint,
    max_waiting bigint,
    revision bigint,
    set_concurrency bigint,
    set_rate bigint,
    set_per bigint,
    set_burst bigint,
    set_max_waiting bigint,
    set_at bigint,
    CONSTRAINT limits_check CHECK (((per IS NULL) = (rate IS NULL))),
    CONSTRAINT limits_check1 CHECK (((burst IS NULL) = (rate IS NULL))),
    CONSTRAINT limits_check2 CHECK (((set_per IS NULL) = (set_rate IS NULL))),
    CONSTRAINT limits_check3 CHECK (((set_burst IS NULL) = (set_rate IS NULL))),
    CONSTRAINT limits_concurrency_check CHECK ((concurrency > 0)),
    CONSTRAINT limits_max_waiting_check CHECK ((max_waiting > 0)),
    CONSTRAINT limits_rate_check CHECK ((rate > 0)),
    CONSTRAINT limits_scope_check CHECK ((scope = ANY (ARRAY['lane'::text, 'lanes'::text, 'queue'::text, 'task'::text]))),
    CONSTRAINT limits_set_concurrency_check CHECK ((set_concurrency > 0)),
    CONSTRAINT limits_set_max_waiting_check CHECK ((set_max_waiting > 0)),
    CONSTRAINT limits_set_rate_check CHECK ((set_rate > 0))
);

CREATE TABLE jobrunner.meta (
    name text NOT NULL COLLATE pg_catalog."C",
    value text NOT NULL
);

CREATE TABLE jobrunner.minutes (
    start bigint NOT NULL,
    task text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    succeeded bigint NOT NULL,
    failed bigint NOT NULL,
    dead bigint NOT NULL,
    wait bytea NOT NULL,
    run bytea NOT NULL
);

CREATE TABLE jobrunner.paused_queues (
    queue text NOT NULL COLLATE pg_catalog."C",
    paused_at bigint NOT NULL
);

CREATE TABLE jobrunner.progress (
    job bigint NOT NULL,
    lease bigint NOT NULL,
    value text NOT NULL
);

CREATE TABLE jobrunner.schedule_ticks (
    schedule text NOT NULL COLLATE pg_catalog."C",
    instant bigint NOT NULL,
    until bigint NOT NULL,
    count bigint NOT NULL,
    outcome text NOT NULL COLLATE pg_catalog."C",
    job text COLLATE pg_catalog."C",
    at bigint NOT NULL,
    CONSTRAINT schedule_ticks_outcome_check CHECK ((outcome = ANY (ARRAY['fired'::text, 'missed'::text, 'late'::text, 'overlap'::text, 'key'::text])))
);

CREATE TABLE jobrunner.schedules (
    id text NOT NULL COLLATE pg_catalog."C",
    source text NOT NULL COLLATE pg_catalog."C",
    task text NOT NULL COLLATE pg_catalog."C",
    args text NOT NULL,
    cron text,
    timezone text,
    every bigint,
    run_at bigint,
    start_at bigint,
    end_at bigint,
    options text NOT NULL,
    misfire text NOT NULL COLLATE pg_catalog."C",
    grace bigint,
    cap bigint NOT NULL,
    overlap text NOT NULL COLLATE pg_catalog."C",
    jitter bigint NOT NULL,
    revision bigint NOT NULL,
    edition bigint NOT NULL,
    paused boolean NOT NULL,
    disabled boolean NOT NULL,
    created_at bigint NOT NULL,
    next bigint,
    last bigint,
    last_fired bigint,
    last_job text COLLATE pg_catalog."C",
    fired bigint NOT NULL,
    skipped bigint NOT NULL,
    CONSTRAINT schedules_check CHECK (((timezone IS NULL) = (cron IS NULL))),
    CONSTRAINT schedules_check1 CHECK ((((((cron IS NOT NULL))::integer + ((every IS NOT NULL))::integer) + ((run_at IS NOT NULL))::integer) = 1)),
    CONSTRAINT schedules_every_check CHECK ((every > 0)),
    CONSTRAINT schedules_misfire_check CHECK ((misfire = ANY (ARRAY['latest'::text, 'all'::text, 'skip'::text]))),
    CONSTRAINT schedules_overlap_check CHECK ((overlap = ANY (ARRAY['allow'::text, 'skip'::text]))),
    CONSTRAINT schedules_source_check CHECK ((source = ANY (ARRAY['code'::text, 'stored'::text])))
);

CREATE TABLE jobrunner.steps (
    job bigint NOT NULL,
    kind text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    value text,
    at bigint NOT NULL,
    CONSTRAINT steps_kind_check CHECK ((kind = ANY (ARRAY['step'::text, 'signal'::text, 'sleep'::text, 'batch'::text, 'cursor'::text])))
);

CREATE TABLE jobrunner.watchers (
    watcher bigint NOT NULL,
    jobs text NOT NULL,
    beat_at bigint NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE jobrunner.workers (
    worker bigint NOT NULL,
    pid bigint NOT NULL,
    host text NOT NULL,
    started_at bigint NOT NULL,
    beat_at bigint NOT NULL,
    queues text NOT NULL,
    tasks text NOT NULL,
    revision bigint,
    lag bigint,
    waits text
)
WITH (fillfactor='50');

INSERT INTO jobrunner.attempts VALUES (1, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'failed', 'ValueError', 'no luck', 'Traceback: no luck');
INSERT INTO jobrunner.attempts VALUES (2, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'failed', 'ValueError', 'no luck', 'Traceback: no luck');
INSERT INTO jobrunner.attempts VALUES (3, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'failed', 'ValueError', 'no luck', 'Traceback: no luck');
INSERT INTO jobrunner.attempts VALUES (4, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'failed', 'ValueError', 'no luck', 'Traceback: no luck');
INSERT INTO jobrunner.attempts VALUES (5, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'failed', 'ValueError', 'no luck', 'Traceback: no luck');
INSERT INTO jobrunner.attempts VALUES (6, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'failed', 'ValueError', 'no luck', 'Traceback: no luck');
INSERT INTO jobrunner.attempts VALUES (7, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'failed', 'ValueError', 'no luck', 'Traceback: no luck');
INSERT INTO jobrunner.attempts VALUES (9, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'failed', 'ValueError', 'no luck', 'Traceback: no luck');
INSERT INTO jobrunner.attempts VALUES (10, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'succeeded', NULL, NULL, NULL);
INSERT INTO jobrunner.attempts VALUES (11, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'succeeded', NULL, NULL, NULL);
INSERT INTO jobrunner.attempts VALUES (12, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'succeeded', NULL, NULL, NULL);
INSERT INTO jobrunner.attempts VALUES (16, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'failed', 'ValueError', 'no luck', 'Traceback: no luck');
INSERT INTO jobrunner.attempts VALUES (17, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'snoozed', NULL, NULL, NULL);
INSERT INTO jobrunner.attempts VALUES (30, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'succeeded', NULL, NULL, NULL);
INSERT INTO jobrunner.attempts VALUES (31, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'failed', 'ValueError', 'no luck', 'Traceback: no luck');
INSERT INTO jobrunner.attempts VALUES (36, 1, 1, 81985529216486895, 1772600767000000, 1772600767000000, 'succeeded', NULL, NULL, NULL);

INSERT INTO jobrunner.audit VALUES (1, 1772600767000000, 'ada@example.org', 'dead_letters.replay', '01936d2c-0000-7000-8000-000000000007', NULL, 1, 'the mail server is back');

INSERT INTO jobrunner.batches VALUES (1, '01936d2c-0000-7000-8000-000000000045', 'five', 'running', 1772600767000000, NULL, NULL, NULL, 0);
INSERT INTO jobrunner.batches VALUES (2, '01936d2c-0000-7000-8000-000000000050', NULL, 'succeeded', 1772600767000000, 1772600767000000, NULL, NULL, 0);
INSERT INTO jobrunner.batches VALUES (3, '01936d2c-0000-7000-8000-000000000057', NULL, 'running', 1772600767000000, NULL, NULL, '01936d2c-0000-7000-8000-000000000055', 0);

INSERT INTO jobrunner.buckets VALUES ('lane', 'drip[1]', 1772604367000000);
INSERT INTO jobrunner.buckets VALUES ('task', 'mail.send', 1772600768000000);

INSERT INTO jobrunner.counters VALUES (1, 'dead:exhausted', 'side', 'work', 3);
INSERT INTO jobrunner.counters VALUES (2, 'attempts:failed', 'batch', 'work', 1);
INSERT INTO jobrunner.counters VALUES (3, 'dead:exhausted', 'batch', 'work', 1);
INSERT INTO jobrunner.counters VALUES (4, 'batches:succeeded', '', '', 1);
INSERT INTO jobrunner.counters VALUES (5, 'jobs:cancelled', 'after', 'otherwise', 1);
INSERT INTO jobrunner.counters VALUES (6, 'parked', 'steps', 'work', 2);

INSERT INTO jobrunner.dead_letters VALUES (1, 1, 1, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 1, 1, NULL, 0, 0, true, '01936d2c-0000-7000-8000-000000000001', 'work', 'default', '{"n":1}', NULL, 'dead', NULL, NULL, NULL, NULL, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'work[1]', NULL, NULL, NULL, 'exhausted', 'ValueError', 'no luck', 'Traceback: no luck', NULL, '0a79cb3e8930f46d');
INSERT INTO jobrunner.dead_letters VALUES (2, 2, 1, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 1, 1, NULL, 0, 0, NULL, '01936d2c-0000-7000-8000-000000000002', 'work', 'default', '{"n":2}', NULL, 'dead', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'buried', 'ValueError', 'no luck', 'Traceback: no luck', NULL, '0a79cb3e8930f46d');
INSERT INTO jobrunner.dead_letters VALUES (3, 3, 1, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 1, 1, NULL, 0, 0, NULL, '01936d2c-0000-7000-8000-000000000003', 'work', 'default', '{"n":3}', NULL, 'dead', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'not_retryable', 'ValueError', 'no luck', 'Traceback: no luck', NULL, '0a79cb3e8930f46d');
INSERT INTO jobrunner.dead_letters VALUES (4, 4, 1, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 1, 1, NULL, 0, 0, NULL, '01936d2c-0000-7000-8000-000000000004', 'work', 'default', '{"n":4}', NULL, 'dead', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'lost', 'ValueError', 'no luck', 'Traceback: no luck', NULL, NULL);
INSERT INTO jobrunner.dead_letters VALUES (5, 5, 1, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 1, 1, NULL, 0, 0, NULL, '01936d2c-0000-7000-8000-000000000005', 'work', 'default', '{"n":5}', NULL, 'dead', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'unknown_task', 'ValueError', 'no luck', 'Traceback: no luck', NULL, NULL);
INSERT INTO jobrunner.dead_letters VALUES (6, 6, 1, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 1, 1, NULL, 0, 0, NULL, '01936d2c-0000-7000-8000-000000000006', 'work', 'default', '{"n":6}', NULL, 'dead', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'invalid_args', 'ValueError', 'no luck', 'Traceback: no luck', NULL, NULL);
INSERT INTO jobrunner.dead_letters VALUES (7, 7, 1, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 0, 1, NULL, 0, 0, NULL, '01936d2c-0000-7000-8000-000000000007', 'work', 'default', '{"n":7}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'exhausted', 'ValueError', 'no luck', 'Traceback: no luck', '01936d2c-0000-7000-8000-000000000008', NULL);
INSERT INTO jobrunner.dead_letters VALUES (9, 31, 1, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 0, 1, NULL, 0, 0, NULL, '01936d2c-0000-7000-8000-000000000043', 'work', 'batch', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, NULL, 'exhausted', 'ValueError', 'no luck', 'Traceback: no luck', NULL, '0a79cb3e8930f46d');

INSERT INTO jobrunner.edges VALUES ('01936d2c-0000-7000-8000-000000000041', '01936d2c-0000-7000-8000-000000000040', 'success', 1);
INSERT INTO jobrunner.edges VALUES ('01936d2c-0000-7000-8000-000000000046', '01936d2c-0000-7000-8000-000000000045', 'success', 1);
INSERT INTO jobrunner.edges VALUES ('01936d2c-0000-7000-8000-000000000047', '01936d2c-0000-7000-8000-000000000045', 'failure', 1);
INSERT INTO jobrunner.edges VALUES ('01936d2c-0000-7000-8000-000000000048', '01936d2c-0000-7000-8000-000000000045', 'end', 1);
INSERT INTO jobrunner.edges VALUES ('01936d2c-0000-7000-8000-000000000051', '01936d2c-0000-7000-8000-000000000050', 'success', 0);
INSERT INTO jobrunner.edges VALUES ('01936d2c-0000-7000-8000-000000000052', '01936d2c-0000-7000-8000-000000000050', 'failure', 2);
INSERT INTO jobrunner.edges VALUES ('01936d2c-0000-7000-8000-000000000053', '01936d2c-0000-7000-8000-000000000050', 'end', 0);
INSERT INTO jobrunner.edges VALUES ('01936d2c-0000-7000-8000-000000000054', '!approved', 'end', 1);
INSERT INTO jobrunner.edges VALUES ('01936d2c-0000-7000-8000-000000000055', '01936d2c-0000-7000-8000-000000000057', 'end', 1);

INSERT INTO jobrunner.jobs VALUES (8, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000008', 'work', 'side', 'queued', '{"n":8}', NULL, NULL, NULL, NULL, '01936d2c-0000-7000-8000-000000000007', NULL, NULL, NULL, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'work[8]', NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (9, 1, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 1, false, false, NULL, '01936d2c-0000-7000-8000-000000000009', 'work', 'again', 'queued', '{"n":9}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (10, 1, NULL, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 0, 1, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000010', 'work', 'default', 'succeeded', '{"n":10}', '"done"', NULL, NULL, 'done', NULL, NULL, NULL, NULL, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (11, 1, NULL, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 0, 1, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000011', 'work', 'default', 'succeeded', '{"n":11}', NULL, 'too large', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (12, 1, NULL, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 0, 1, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000012', 'work', 'default', 'succeeded', '{"n":12}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (13, 0, NULL, 1772600767000000, 1772600827000000, NULL, NULL, 1772600767000000, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000013', 'work', 'default', 'cancelled', '{"n":13}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (14, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, 1772600768000000, 1772600768000000, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000014', 'work', 'nobody', 'expired', '{"n":14}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (15, 0, NULL, 1772600767000000, 1772600827000000, NULL, NULL, NULL, NULL, 1000000, NULL, 5, 0, 3, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000015', 'work', 'default', 'scheduled', '{"n":15}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (16, 1, NULL, 1772600767000000, 1772600827000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 1, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000016', 'work', 'default', 'scheduled', '{"n":16}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (17, 1, NULL, 1772600767000000, 1772600827000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000017', 'work', 'default', 'scheduled', '{"n":17}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (18, 1, 81985529216486895, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 1, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000018', 'work', 'default', 'running', '{"n":18}', NULL, NULL, NULL, NULL, NULL, NULL, '01936d2c-0000-7000-8000-000000000018', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (19, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000019', 'work', 'default', 'blocked', '{"n":19}', NULL, NULL, NULL, NULL, NULL, NULL, '01936d2c-0000-7000-8000-000000000018', '01936d2c-0000-7000-8000-000000000018', NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (20, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000020', 'work', 'side', 'blocked', '{"n":20}', NULL, NULL, NULL, NULL, NULL, NULL, '01936d2c-0000-7000-8000-000000000018', '01936d2c-0000-7000-8000-000000000019', NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (21, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, 1772600767000000, 0, 0, NULL, 0, 0, false, false, true, '01936d2c-0000-7000-8000-000000000021', 'work', 'side', 'queued', '{"n":21}', NULL, NULL, NULL, NULL, NULL, 'nightly', NULL, NULL, NULL, 'work[21]', NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (22, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 1772687167000000, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000023', 'work', 'default', 'queued', '{"n":23}', NULL, NULL, 'k', 'waits', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (23, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000024', 'work', 'closed', 'queued', '{"n":24}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (24, 1, 81985529216486895, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 1, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000025', 'work', 'run', 'running', '{"n":25}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'work[25]', NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (25, 1, 81985529216486895, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 1, NULL, 0, 0, true, false, NULL, '01936d2c-0000-7000-8000-000000000026', 'work', 'run', 'running', '{"n":26}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (26, 1, NULL, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 1, NULL, 2, 0, false, true, NULL, '01936d2c-0000-7000-8000-000000000027', 'work', 'run', 'queued', '{"n":27}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (27, 1, 81985529216486895, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 1, 1, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000028', 'work', 'run', 'running', '{"n":28}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (28, 1, 81985529216486895, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 1, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000040', 'work', 'batch', 'running', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (29, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000041', 'work', 'batch', 'blocked', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (30, 1, NULL, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 0, 1, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000042', 'work', 'batch', 'succeeded', '{}', '"done"', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (32, 1, 81985529216486895, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 1, NULL, 0, 0, true, false, NULL, '01936d2c-0000-7000-8000-000000000044', 'work', 'batch', 'running', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (33, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000046', 'then', 'after', 'blocked', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (34, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000047', 'otherwise', 'after', 'blocked', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (35, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000048', 'at_end', 'after', 'blocked', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (36, 1, NULL, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, 0, 1, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000049', 'work', 'batch2', 'succeeded', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (37, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000051', 'then', 'after', 'queued', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (38, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, 1772600767000000, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000052', 'otherwise', 'after', 'cancelled', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (39, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000053', 'at_end', 'after', 'queued', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (40, 1, NULL, 1772600767000000, 1772600827000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000054', 'work', 'steps', 'scheduled', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (41, 1, NULL, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000055', 'work', 'steps', 'blocked', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (42, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000056', 'work', 'batch', 'queued', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 3, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (43, 1, 81985529216486895, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 1, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000058', 'sync', 'lanes', 'running', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'sync[full]', NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (44, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000059', 'sync', 'lanes', 'queued', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'sync[full]', NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (45, 1, 81985529216486895, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 1, NULL, 0, 0, false, false, true, '01936d2c-0000-7000-8000-000000000060', 'sync', 'lanes', 'running', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'sync[order]', NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (46, 1, 81985529216486895, 1772600767000000, 1772600767000000, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, 0, 1, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000061', 'drip', 'lanes', 'running', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'drip[1]', NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (47, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000062', 'drip', 'lanes', 'queued', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'drip[1]', NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (48, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 1, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000063', 'open', 'lanes', 'queued', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'open[a]', NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (49, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000064', 'open', 'lanes', 'queued', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'open[b]', NULL, NULL, NULL);
INSERT INTO jobrunner.jobs VALUES (50, 0, NULL, 1772600767000000, 1772600767000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, false, false, NULL, '01936d2c-0000-7000-8000-000000000065', 'open', 'lanes', 'queued', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'open[b]', NULL, NULL, NULL);

INSERT INTO jobrunner.lane_locks VALUES ('work[8]');
INSERT INTO jobrunner.lane_locks VALUES ('open[b]');
INSERT INTO jobrunner.lane_locks VALUES ('drip[1]');
INSERT INTO jobrunner.lane_locks VALUES ('sync[order]');
INSERT INTO jobrunner.lane_locks VALUES ('open[a]');
INSERT INTO jobrunner.lane_locks VALUES ('work[25]');
INSERT INTO jobrunner.lane_locks VALUES ('sync[full]');
INSERT INTO jobrunner.lane_locks VALUES ('work[21]');

INSERT INTO jobrunner.lanes VALUES (1, 'work[8]', 'side', 'work', false, 0, 1772600767000000, 'open', NULL);
INSERT INTO jobrunner.lanes VALUES (2, 'work[21]', 'side', 'work', true, 0, 1772600767000000, 'open', NULL);
INSERT INTO jobrunner.lanes VALUES (3, 'sync[full]', 'lanes', 'sync', false, 0, 1772600767000001, 'full', NULL);
INSERT INTO jobrunner.lanes VALUES (4, 'drip[1]', 'lanes', 'drip', false, 0, 1772600767000001, 'empty', 1772604366950000);
INSERT INTO jobrunner.lanes VALUES (5, 'open[a]', 'lanes', 'open', false, 1, 1772600767000000, 'open', NULL);
INSERT INTO jobrunner.lanes VALUES (6, 'open[b]', 'lanes', 'open', false, 0, 1772600767000000, 'open', NULL);

INSERT INTO jobrunner.limits VALUES ('lanes', 'drip', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, 3600000000, 1, NULL, 1772600767000000);
INSERT INTO jobrunner.limits VALUES ('lanes', 'sync', NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, NULL, NULL, NULL, 1772600767000000);
INSERT INTO jobrunner.limits VALUES ('lanes', 'work', 2, NULL, NULL, NULL, NULL, 12, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobrunner.limits VALUES ('task', 'mail.send', NULL, 5, 1000000, 5, NULL, NULL, NULL, 7, 1000000, 7, NULL, 1772600767000000);

INSERT INTO jobrunner.meta VALUES ('schema_version', '4');

INSERT INTO jobrunner.minutes VALUES (1772600760000000, '', '', 3, 7, 7, '\x00010a', '\x28010a');
INSERT INTO jobrunner.minutes VALUES (1772600760000000, '', 'default', 3, 7, 7, '\x00010a', '\x28010a');
INSERT INTO jobrunner.minutes VALUES (1772600760000000, 'work', 'default', 3, 7, 7, '\x00010a', '\x28010a');

INSERT INTO jobrunner.paused_queues VALUES ('closed', 1772600767000000);

INSERT INTO jobrunner.progress VALUES (18, 1, '[3,10,"rendering"]');
INSERT INTO jobrunner.progress VALUES (24, 1, '[3,10,"rendering"]');
INSERT INTO jobrunner.progress VALUES (25, 1, '[3,10,"rendering"]');
INSERT INTO jobrunner.progress VALUES (27, 1, '[3,10,"rendering"]');

INSERT INTO jobrunner.schedule_ticks VALUES ('nightly', 1772600467000000, 1772600587000000, 3, 'missed', NULL, 1772600767000000);
INSERT INTO jobrunner.schedule_ticks VALUES ('nightly', 1772600647000000, 1772600647000000, 1, 'key', NULL, 1772600767000000);
INSERT INTO jobrunner.schedule_ticks VALUES ('nightly', 1772600767000000, 1772600767000000, 1, 'fired', '01936d2c-0000-7000-8000-000000000021', 1772600767000000);
INSERT INTO jobrunner.schedule_ticks VALUES ('nightly', 1772600827000000, 1772600827000000, 1, 'overlap', NULL, 1772600827000000);

INSERT INTO jobrunner.schedules VALUES ('a', 'code', 'mail.send', '{}', '0 8 * * *', 'Europe/Berlin', NULL, NULL, 1772600767000000, 1772687167000000, '{"tag": "t"}', 'all', 5, 7, 'skip', 9, 3, 0, true, true, 1772600767000000, 1772600767000001, 1772600766999999, 1772600766999998, 'job', 4, 5);
INSERT INTO jobrunner.schedules VALUES ('launch', 'stored', 'work', '{}', NULL, NULL, NULL, 1772687167000000, NULL, NULL, '{}', 'latest', NULL, 1, 'allow', 0, 0, 0, true, false, 1772600767000000, 1772687167000000, NULL, NULL, NULL, 0, 0);
INSERT INTO jobrunner.schedules VALUES ('nightly', 'stored', 'work', '{"n":1}', NULL, NULL, 60000000, NULL, NULL, NULL, '{}', 'latest', NULL, 1, 'skip', 0, 0, 0, false, false, 1772600767000000, 1772600887000000, 1772600827000000, 1772600767000000, '01936d2c-0000-7000-8000-000000000021', 1, 5);

INSERT INTO jobrunner.steps VALUES (40, 'step', 'charge', '7', 1772600767000000);
INSERT INTO jobrunner.steps VALUES (41, 'batch', 'pages', '"01936d2c-0000-7000-8000-000000000057"', 1772600767000000);

INSERT INTO jobrunner.watchers VALUES (7, '[]', 1772600767000000);

INSERT INTO jobrunner.workers VALUES (81985529216486895, 4711, 'here', 1772600767000000, 1772600767000000, '{"default":20}', '{"work":5}', 12, NULL, '{"look":1,"held":[]}');

SELECT pg_catalog.setval('jobrunner.audit_entry_seq', 1, true);

SELECT pg_catalog.setval('jobrunner.batches_seq_seq', 3, true);

SELECT pg_catalog.setval('jobrunner.counters_counter_seq', 6, true);

SELECT pg_catalog.setval('jobrunner.dead_letters_letter_seq', 9, true);

SELECT pg_catalog.setval('jobrunner.jobs_seq_seq', 50, true);

SELECT pg_catalog.setval('jobrunner.lanes_id_seq', 6, true);

ALTER TABLE ONLY jobrunner.attempts
    ADD CONSTRAINT attempts_pkey PRIMARY KEY (job, lease);

ALTER TABLE ONLY jobrunner.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (entry);

ALTER TABLE ONLY jobrunner.batches
    ADD CONSTRAINT batches_id_key UNIQUE (id);

ALTER TABLE ONLY jobrunner.batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY jobrunner.buckets
    ADD CONSTRAINT buckets_pkey PRIMARY KEY (scope, name);

ALTER TABLE ONLY jobrunner.counters
    ADD CONSTRAINT counters_name_queue_task_key UNIQUE (name, queue, task);

ALTER TABLE ONLY jobrunner.counters
    ADD CONSTRAINT counters_pkey PRIMARY KEY (counter);

ALTER TABLE ONLY jobrunner.dead_letters
    ADD CONSTRAINT dead_letters_id_key UNIQUE (id);

ALTER TABLE ONLY jobrunner.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (letter);

ALTER TABLE ONLY jobrunner.dead_letters
    ADD CONSTRAINT dead_letters_seq_key UNIQUE (seq);

ALTER TABLE ONLY jobrunner.edges
    ADD CONSTRAINT edges_pkey PRIMARY KEY (job, needs);

ALTER TABLE ONLY jobrunner.followups
    ADD CONSTRAINT followups_pkey PRIMARY KEY (id);

ALTER TABLE ONLY jobrunner.hours
    ADD CONSTRAINT hours_pkey PRIMARY KEY (start, task, queue);

ALTER TABLE ONLY jobrunner.jobs
    ADD CONSTRAINT jobs_id_key UNIQUE (id);

ALTER TABLE ONLY jobrunner.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY jobrunner.lane_locks
    ADD CONSTRAINT lane_locks_pkey PRIMARY KEY (lane);

ALTER TABLE ONLY jobrunner.lanes
    ADD CONSTRAINT lanes_lane_queue_key UNIQUE (lane, queue);

ALTER TABLE ONLY jobrunner.lanes
    ADD CONSTRAINT lanes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY jobrunner.limits
    ADD CONSTRAINT limits_pkey PRIMARY KEY (scope, name);

ALTER TABLE ONLY jobrunner.meta
    ADD CONSTRAINT meta_pkey PRIMARY KEY (name);

ALTER TABLE ONLY jobrunner.minutes
    ADD CONSTRAINT minutes_pkey PRIMARY KEY (start, task, queue);

ALTER TABLE ONLY jobrunner.paused_queues
    ADD CONSTRAINT paused_queues_pkey PRIMARY KEY (queue);

ALTER TABLE ONLY jobrunner.progress
    ADD CONSTRAINT progress_pkey PRIMARY KEY (job);

ALTER TABLE ONLY jobrunner.schedule_ticks
    ADD CONSTRAINT schedule_ticks_pkey PRIMARY KEY (schedule, instant);

ALTER TABLE ONLY jobrunner.schedules
    ADD CONSTRAINT schedules_pkey PRIMARY KEY (id);

ALTER TABLE ONLY jobrunner.steps
    ADD CONSTRAINT steps_pkey PRIMARY KEY (job, kind, name);

ALTER TABLE ONLY jobrunner.watchers
    ADD CONSTRAINT watchers_pkey PRIMARY KEY (watcher);

ALTER TABLE ONLY jobrunner.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (worker);

CREATE INDEX batches_ended ON jobrunner.batches USING btree (ended_at, seq) WHERE (ended_at IS NOT NULL);

CREATE INDEX batches_name ON jobrunner.batches USING btree (name, seq) WHERE (name IS NOT NULL);

CREATE INDEX batches_parent ON jobrunner.batches USING btree (parent) WHERE (parent IS NOT NULL);

CREATE INDEX batches_running ON jobrunner.batches USING btree (cancelled_at, seq) WHERE (state = 'running'::text);

CREATE INDEX dead_letters_batch ON jobrunner.dead_letters USING btree (batch, letter) WHERE ((batch IS NOT NULL) AND (replayed_as IS NULL));

CREATE INDEX dead_letters_died ON jobrunner.dead_letters USING btree (died_at);

CREATE INDEX dead_letters_groups ON jobrunner.dead_letters USING btree (fingerprint, died_at, letter) WHERE (replayed_as IS NULL);

CREATE INDEX edges_needs ON jobrunner.edges USING btree (needs, ((state + 0)));

CREATE INDEX edges_unmet ON jobrunner.edges USING btree (job) WHERE (state > 0);

CREATE INDEX followups_batch ON jobrunner.followups USING btree (batch) WHERE (batch IS NOT NULL);

CREATE INDEX jobs_batch ON jobrunner.jobs USING btree (batch, seq) WHERE (batch IS NOT NULL);

CREATE INDEX jobs_batch_stopped ON jobrunner.jobs USING btree (batch) WHERE ((batch IS NOT NULL) AND (state = ANY (ARRAY['cancelled'::text, 'expired'::text])));

CREATE INDEX jobs_batch_unfinished ON jobrunner.jobs USING btree (batch, seq) WHERE ((batch IS NOT NULL) AND (state = ANY (ARRAY['scheduled'::text, 'queued'::text, 'running'::text, 'blocked'::text])));

CREATE INDEX jobs_blocked ON jobrunner.jobs USING btree (after) WHERE (state = 'blocked'::text);

CREATE INDEX jobs_by_key ON jobrunner.jobs USING btree (key, seq) WHERE (key IS NOT NULL);

CREATE INDEX jobs_by_tag ON jobrunner.jobs USING btree (tag, seq) WHERE (tag IS NOT NULL);

CREATE INDEX jobs_cancelled ON jobrunner.jobs USING btree (finished_at) WHERE (state = 'cancelled'::text);

CREATE INDEX jobs_expired ON jobrunner.jobs USING btree (finished_at) WHERE (state = 'expired'::text);

CREATE INDEX jobs_expiring ON jobrunner.jobs USING btree (expires_at) WHERE ((expires_at IS NOT NULL) AND (state = ANY (ARRAY['queued'::text, 'scheduled'::text])));

CREATE INDEX jobs_finished ON jobrunner.jobs USING btree (finished_at, seq) WHERE (state = ANY (ARRAY['succeeded'::text, 'cancelled'::text, 'expired'::text]));

CREATE INDEX jobs_in_lane ON jobrunner.jobs USING btree (lane) WHERE ((lane IS NOT NULL) AND (state = 'running'::text));

CREATE UNIQUE INDEX jobs_key ON jobrunner.jobs USING btree (task, key) WHERE ((key IS NOT NULL) AND (state = ANY (ARRAY['scheduled'::text, 'queued'::text, 'running'::text, 'blocked'::text])));

CREATE INDEX jobs_laned ON jobrunner.jobs USING btree (queue, task, lane, priority DESC, run_at, seq) WHERE ((state = 'queued'::text) AND (NOT suspect) AND (lane IS NOT NULL));

CREATE INDEX jobs_ordered ON jobrunner.jobs USING btree (lane, seq) WHERE (ordered AND (state = ANY (ARRAY['scheduled'::text, 'queued'::text, 'running'::text])));

CREATE INDEX jobs_queued ON jobrunner.jobs USING btree (queue, task, priority DESC, run_at, seq) WHERE ((state = 'queued'::text) AND (NOT suspect) AND (lane IS NULL));

CREATE INDEX jobs_retrying ON jobrunner.jobs USING btree (run_at, seq) WHERE ((state = 'scheduled'::text) AND (attempt > 0));

CREATE INDEX jobs_running ON jobrunner.jobs USING btree (worker, queue, task) WHERE (state = 'running'::text);

CREATE INDEX jobs_schedule ON jobrunner.jobs USING btree (schedule) WHERE ((schedule IS NOT NULL) AND (state = ANY (ARRAY['scheduled'::text, 'queued'::text, 'running'::text, 'blocked'::text])));

CREATE INDEX jobs_scheduled ON jobrunner.jobs USING btree (run_at, queue) WHERE (state = 'scheduled'::text);

CREATE INDEX jobs_suspects ON jobrunner.jobs USING btree (queue, priority DESC, run_at, seq) WHERE ((state = 'queued'::text) AND suspect);

CREATE INDEX lanes_empty ON jobrunner.lanes USING btree (wake_at) WHERE (state = 'empty'::text);

CREATE INDEX lanes_open ON jobrunner.lanes USING btree (queue, task, priority DESC, turn, id) WHERE (state = 'open'::text);

CREATE INDEX schedule_ticks_at ON jobrunner.schedule_ticks USING btree (at);

CREATE INDEX schedules_next ON jobrunner.schedules USING btree (task, next) WHERE ((next IS NOT NULL) AND (NOT paused) AND (NOT disabled));

CREATE INDEX schedules_task ON jobrunner.schedules USING btree (task, id);
