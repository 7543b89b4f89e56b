// How numbers, times and states are said.

const whole = new Intl.NumberFormat('en', {maximumFractionDigits: 0});
const fine = new Intl.NumberFormat('en', {maximumFractionDigits: 1});

export const count = (n) => whole.format(n);

// rate says messages a second.
export function rate(n) {
  if (n > 0 && n < 0.1) return '< 0.1/s';
  return `${(n < 10 ? fine : whole).format(n)}/s`;
}

export function bytes(n) {
  if (n < 1024) return `${n} B`;
  if (n < 1024 * 1024) return `${fine.format(n / 1024)} KiB`;
  return `${fine.format(n / 1024 / 1024)} MiB`;
}

// span says how long something has lasted, in its largest unit or two.
export function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
}

const two = (n) => String(n).padStart(2, '0');
const day = (t) => `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`;

// date and moment are in the viewer's time zone, in an order that cannot be misread.
export const date = (iso) => day(new Date(iso));
export function moment(iso) {
  const t = new Date(iso);
  return `${day(t)} ${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
}
export function clock(t = new Date()) {
  return `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
}

const states = {
  STARTED: ['Started', 'good'], STARTING: ['Starting', 'busy'], STOPPED: ['Stopped', 'off'], STOPPING: ['Stopping', 'busy'],
  PAUSED: ['Paused', 'wait'], PAUSING: ['Pausing', 'busy'], UNDEPLOYED: ['Undeployed', 'off'],
};
export const state = (word) => states[word] ?? [word, 'busy'];

const letters = {S: ['sent', 'good'], Q: ['waiting', 'wait'], E: ['set aside', 'bad'], T: ['taken in', 'good'], F: ['filtered', 'off']};
export const outcome = (letter) => letters[letter] ?? [letter, 'busy'];

// commonName is what a person calls a certificate.
export function commonName(subject) {
  const found = /(?:^|[,+])\s*CN=((?:\\.|[^,+\\])+)/.exec(subject);
  return found ? found[1].replace(/\\(.)/g, '$1') : subject || 'without a name';
}

// left says how long a certificate is still good for, and how urgent that is.
export function left(notBefore, notAfter, now) {
  const hours = (new Date(notAfter) - now) / 3600e3;
  const days = Math.floor(Math.abs(hours) / 24);
  const some = days === 1 ? '1 day' : `${count(days)} days`;
  if (hours < 0) return [days === 0 ? 'expired today' : `expired ${some} ago`, 'bad'];
  if (new Date(notBefore) > now) return ['not valid yet', 'bad'];
  if (hours < 48) return [`${Math.floor(hours)} h left`, 'bad'];
  if (days <= 7) return [`${some} left`, 'bad'];
  return [`${some} left`, days <= 30 ? 'wait' : 'good'];
}
