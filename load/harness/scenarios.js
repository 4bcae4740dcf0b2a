// The scenarios of a load run: a warm-up, VUs as fast as they are answered with a user each and with one for all,
// and steady rates. Each call prints one line, which harness/calls.py reads. Settings come as LOAD_* variables.

import http from 'k6/http';
import exec from 'k6/execution';

const PATIENCE = '60s';
const GAP_S = 4; // between scenarios: calls of the one before have ended by then
const vus = Number(__ENV.LOAD_VUS);
const durationS = Number(__ENV.LOAD_DURATION_S);
const warmupS = Number(__ENV.LOAD_WARMUP_S);
const rates = __ENV.LOAD_RATES.split(',').map(Number);
const keys = JSON.parse(open(__ENV.LOAD_KEYS));

function closed(count, seconds, startS, run) {
  return { executor: 'constant-vus', vus: count, duration: `${seconds}s`, startTime: `${startS}s`, exec: run };
}

function open_loop(rate, startS) {
  return {
    executor: 'constant-arrival-rate',
    rate,
    timeUnit: '1s',
    duration: `${durationS}s`,
    startTime: `${startS}s`,
    preAllocatedVUs: vus,
    maxVUs: vus * 4,
    exec: 'at_a_rate',
  };
}

function planned() {
  const scenarios = { warmup: closed(Math.max(2, Math.floor(vus / 10)), warmupS, 0, 'warmup') };
  let startS = warmupS + GAP_S;
  for (const run of ['distinct_users', 'same_user']) {
    scenarios[run] = closed(vus, durationS, startS, run);
    startS += durationS + GAP_S;
  }
  for (const rate of rates) {
    scenarios[`rate_${rate}`] = open_loop(rate, startS);
    startS += durationS + GAP_S;
  }
  return scenarios;
}

export const options = {
  scenarios: planned(),
  discardResponseBodies: true,
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'p(99.9)', 'max'],
};

export function warmup() { call(own_key()); }
export function distinct_users() { call(own_key()); }
export function same_user() { call(keys.shared); }

export function at_a_rate() {
  const rate = Number(exec.scenario.name.slice('rate_'.length));
  call(own_key(), exec.scenario.startTime + (exec.scenario.iterationInTest * 1000) / rate);
}

function own_key() {
  return keys.own[exec.vu.idInTest % keys.own.length];
}

function call(key, dueMs) {
  const number = exec.scenario.iterationInTest;
  const scenario = exec.scenario.name;
  const requestId = `${scenario}-${number}`;
  const body = JSON.stringify({
    model: 'local:fake',
    messages: [{ role: 'user', content: 'word '.repeat(1 + (number % 40)) }],
    max_tokens: 1 + (number % 30),
  });
  const headers = {
    Authorization: `Bearer ${key}`,
    'Content-Type': 'application/json',
    'x-request-id': requestId,
  };
  const sentMs = Date.now();
  const answer = http.post(`${__ENV.LOAD_URL}/v1/chat/completions`, body, { headers, timeout: PATIENCE });
  const promised = answer.headers['X-Usage-Id'] || null;
  console.log(JSON.stringify({
    scenario,
    request_id: requestId,
    outcome: outcome(answer.status, promised),
    status: answer.status,
    promised,
    due_ms: dueMs === undefined ? sentMs : dueMs,
    sent_ms: sentMs,
    done_ms: sentMs + answer.timings.duration,
  }));
}

function outcome(status, promised) {
  if (status === 200) return 'answered';
  if (status === 0) return 'unreached';
  return promised ? 'broken' : 'refused';
}

export function handleSummary(data) {
  return { [__ENV.LOAD_SUMMARY]: JSON.stringify(data) };
}
