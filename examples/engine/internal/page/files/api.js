// Requests to the engine's API. The session is a cookie that scripts cannot read.

// Refused is an answer that is not success.
export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const words = {
  0: 'The engine cannot be reached.', 401: 'Your session has ended.', 403: 'Your role does not allow this.',
  429: 'Too many requests: try again in a moment.', 503: 'The engine cannot do this now.',
};

let ended = () => {};

// onEnded sets what is called when the session turns out to have ended.
export function onEnded(f) { ended = f; }

// call makes a request and returns its JSON, or null where there is none. X-Requested-With
// is what no page of another origin can send.
export async function call(method, path, body, {quiet = false, raw = false} = {}) {
  const headers = {'X-Requested-With': 'carewire', 'X-Strict': 'true'};
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, {method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: 'no-store', redirect: 'error'});
  } catch {
    throw new Refused(0, words[0]);
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    if (response.status === 401 && !quiet) ended();
    throw new Refused(response.status, said.message || said.error || words[response.status] || `The engine answers ${response.status}.`,
      Number(response.headers.get('Retry-After')) || 0);
  }
  if (raw) return new Uint8Array(await response.arrayBuffer());
  return response.status === 204 ? null : response.json();
}

export const get = (path, options) => call('GET', path, undefined, options);
export const post = (path, body, options) => call('POST', path, body, options);

// channelPath is the address of a channel, whatever its ID has in it.
export const channelPath = (id, ...more) => ['/api/channels', encodeURIComponent(id), ...more].join('/');
