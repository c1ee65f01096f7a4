-- round_4 of 0004 with three differences. New jobs come as one array of rows, which client and server read faster than an
-- array for each column. The tasks that the worker knows come once, for the claim and for the ticks. And a claim of several
-- tasks seeks each of them once, not first to find those that have jobs, and none in a queue where nothing waits.
CREATE TYPE jobrunner.new_job_5 AS (
    state text, id text, task text, queue text, args text, created_at bigint, run_at bigint, priority bigint,
    expires_at bigint, max_attempts bigint, timeout bigint, tag text, replay_of text, schedule text, scheduled_for bigint,
    chain text, after text, trace text, on_dead text
);

CREATE FUNCTION jobrunner.round_5(
    p_now bigint,
    -- successes of one worker that write nothing, of jobs that nobody waits for, in the order of their seq
    d_seq bigint[], d_lease bigint[], d_worker bigint, d_at bigint[], d_result text[], d_omitted text[],
    p_promote boolean,
    new_jobs jobrunner.new_job_5[], -- without a key, a lane and a batch
    p_tasks text[], -- those that the worker knows, for a claim or for ticks
    -- the claim
    c_worker bigint, c_must_stand boolean, c_queues text[], c_free bigint[], c_suspects boolean,
    p_ticks boolean
) RETURNS TABLE (
    -- one row for each claimed job, then one with seq NULL for the rest of the answer
    seq bigint, lease bigint, worker bigint, id text, task text, queue text, args text, attempt bigint, started_at bigint,
    first_started_at bigint, created_at bigint, run_at bigint, priority bigint, max_attempts bigint, "timeout" bigint,
    suspect boolean, scheduled_for bigint, chain text, trace text, lane text, batch bigint, handed text,
    settled bigint[], -- NULL if all of them
    promoted bigint, next_due bigint, next_tick bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    r_settled bigint[];
    r_promoted bigint := 0;
    r_next_due bigint;
    r_next_tick bigint;
    room bigint;
    got bigint;
    deep bigint;
    depth bigint;
    known text[];
    deeper text[];
    ranked bigint[];
    waiting text[];
    crowded text[];
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

    IF new_jobs IS NOT NULL THEN
        INSERT INTO jobrunner.jobs (
            state, id, task, queue, args, created_at, run_at, priority, expires_at, max_attempts, timeout, tag,
            replay_of, schedule, scheduled_for, chain, after, trace, on_dead
        )
        SELECT state, id, task, queue, args, created_at, run_at, priority, expires_at, max_attempts, timeout, tag,
            replay_of, schedule, scheduled_for, chain, after, trace, on_dead
        FROM unnest(new_jobs) WITH ORDINALITY ORDER BY ordinality;
    END IF;

    -- The lock on its row holds off whoever found the worker dead, until the commit; without a row it claims nothing.
    IF c_queues IS NOT NULL THEN
        PERFORM FROM jobrunner.workers row WHERE row.worker = c_worker FOR KEY SHARE;
    END IF;
    IF c_queues IS NOT NULL AND (FOUND OR NOT c_must_stand) THEN
        FOR n IN 1 .. cardinality(c_queues) LOOP
            CONTINUE WHEN EXISTS (SELECT FROM jobrunner.paused_queues paused WHERE paused.queue = c_queues[n]);
            room := c_free[n];
            deep := room + 20; -- others may hold the first ones
            known := p_tasks;
            deeper := '{}';
            LOOP
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
                    EXIT;
                END IF;
                -- Ranked without locks, by the first jobs of each task. A task of which all these are ranked may have more that
                -- belong there: a second pass reads more of such tasks, and only the tasks ranked in the first.
                depth := least(deep, greatest(2, 2 * deep / cardinality(p_tasks)));
                WITH top AS MATERIALIZED (
                    SELECT first.seq, wanted.task FROM unnest(known) AS wanted (task), LATERAL (
                        SELECT seq, priority, run_at FROM jobrunner.jobs job
                        WHERE job.state = 'queued' AND NOT job.suspect AND job.lane IS NULL
                            AND job.queue = c_queues[n] AND job.task = wanted.task
                            AND (expires_at IS NULL OR expires_at > p_now)
                        ORDER BY priority DESC, run_at, seq
                        LIMIT CASE WHEN wanted.task = ANY (deeper) THEN deep ELSE depth END
                    ) AS first
                    WHERE EXISTS ( -- one seek in an idle queue
                        SELECT FROM jobrunner.jobs
                        WHERE state = 'queued' AND NOT suspect AND lane IS NULL AND queue = c_queues[n]
                    )
                    ORDER BY first.priority DESC, first.run_at, first.seq LIMIT deep
                )
                SELECT array_agg(top.seq), array_agg(DISTINCT top.task),
                    ARRAY(SELECT task FROM top GROUP BY task HAVING count(*) >= depth)
                INTO ranked, waiting, crowded FROM top;
                EXIT WHEN ranked IS NULL;
                IF crowded <> '{}' AND deeper = '{}' AND depth < deep THEN
                    known := waiting;
                    deeper := crowded;
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
                EXIT WHEN room <= 0 OR deep >= 5000 OR cardinality(ranked) < deep;
                deep := deep * 4;
                known := p_tasks;
                deeper := '{}';
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
    IF p_ticks THEN
        SELECT min(first.next) INTO r_next_tick FROM unnest(p_tasks) AS wanted (task), LATERAL (
            SELECT next FROM jobrunner.schedules
            WHERE next IS NOT NULL AND NOT paused AND NOT disabled AND task = wanted.task ORDER BY next LIMIT 1
        ) AS first
        WHERE EXISTS (SELECT FROM jobrunner.schedules WHERE next IS NOT NULL AND NOT paused AND NOT disabled);
    END IF;
    RETURN QUERY SELECT NULL::bigint, NULL::bigint, NULL::bigint, NULL, NULL, NULL, NULL, NULL::bigint, NULL::bigint,
        NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
        NULL::boolean, NULL::bigint, NULL, NULL, NULL, NULL::bigint, NULL,
        CASE WHEN cardinality(r_settled) = cardinality(d_seq) THEN NULL ELSE coalesce(r_settled, '{}') END,
        r_promoted, r_next_due, r_next_tick;
END $$;
