// On every page: the theme, times that stay true, buttons that call the API, copying, and words for what went wrong.

const token = document.querySelector('meta[name="csrf-token"]').content;

/** A call of the API with this page's session. Gives the JSON of the reply; throws its error's words. */
export async function call(method, url, body) {
  const headers = { 'X-CSRF-Token': token };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const reply = await fetch(url, { method, headers, body: sent, credentials: 'same-origin' });
  if (reply.status === 401) location.assign(`/ui/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  const told = await reply.json().catch(() => ({}));
  if (reply.ok) return told;
  const error = told.error ?? { message: `The server answered ${reply.status}.` };
  throw Object.assign(new Error(error.message), { param: error.param, code: error.code, status: reply.status });
}

/** A file as the API takes it within JSON. */
export function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener('load', () => resolve(reader.result));
    reader.addEventListener('error', () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

export function csrf() { return token; }

/** An element: `make('li', {class: 'new'}, 'text', child)`; text is text, never markup. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined && value !== false) element.setAttribute(key, value === true ? '' : value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function toast(words) {
  const note = make('div', { class: 'toast' }, words);
  document.getElementById('toasts').append(note);
  setTimeout(() => note.remove(), 7000);
}

/** Seconds as words, like the server writes them. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  const whole = Math.round(seconds);
  const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const at = units.findIndex(([size]) => whole >= size);
  const [large, name] = units[at];
  const left = at < 3 ? Math.floor((whole % large) / units[at + 1][0]) : 0;
  return `${Math.floor(whole / large)} ${name}${left ? ` ${left} ${units[at + 1][1]}` : ''}`;
}

export function number(value) {
  if (value === null || value === undefined) return '–';
  if (typeof value !== 'number') return String(value);
  if (Number.isInteger(value)) return Math.abs(value) >= 1e7 ? `${(value / 1e6).toFixed(1)} M` : value.toLocaleString('en-US');
  return Math.abs(value) >= 1e-4 ? String(Number(value.toPrecision(4))) : value.toExponential(1);
}

export function size(bytes) {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let at = 0;
  while (bytes >= 1000 && at < 4) { bytes /= 1000; at += 1; }
  return `${at === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[at]}`;
}

function ago(element) {
  const passed = (Date.now() - Date.parse(element.dateTime)) / 1000;
  const large = duration(Math.abs(passed)).split(' ').slice(0, 2).join(' ');
  const words = Math.abs(passed) < 5 ? 'just now' : passed > 0 ? `${large} ago` : `in ${large}`;
  if (element.textContent !== words) element.textContent = words;
}

export function time(seconds) {
  const at = new Date(seconds * 1000).toISOString();
  const element = make('time', { datetime: at, title: `${at.slice(0, 19).replace('T', ' ')} UTC` });
  ago(element);
  return element;
}

/** Ask before something that cannot be undone. */
function sure(words) {
  return new Promise((resolve) => {
    const dialog = make('dialog', { 'aria-label': 'Please confirm' }, make('p', {}, words));
    const yes = make('button', { class: 'danger', value: 'yes' }, 'Yes, do it');
    dialog.append(make('form', { method: 'dialog', class: 'actions' }, make('button', { value: '' }, 'Keep it'), yes));
    dialog.addEventListener('close', () => { dialog.remove(); resolve(dialog.returnValue === 'yes'); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

async function press(button) {
  const [method, url] = button.dataset.call.split(' ');
  if (button.dataset.confirm && !(await sure(button.dataset.confirm))) return;
  button.disabled = true;
  try {
    const told = await call(method, url, button.dataset.body ? JSON.parse(button.dataset.body) : undefined);
    const done = button.dataset.done;
    if (done === 'reload') location.reload();
    else if (done.startsWith('/')) location.assign(done.replace('{id}', told.id));
    else document.dispatchEvent(new CustomEvent('called', { detail: { button, told } }));
  } catch (error) {
    toast(error.message);
    button.disabled = false;
  }
}

async function copy(button) {
  const text = button.dataset.copy || button.parentElement.querySelector('pre, code').textContent;
  try { await navigator.clipboard.writeText(text); } catch { return toast('This browser does not let pages copy.'); }
  const was = button.textContent;
  button.textContent = 'Copied';
  setTimeout(() => { button.textContent = was; }, 1500);
}

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
}

function switchTheme() {
  const next = dark() ? 'light' : 'dark';
  document.documentElement.dataset.theme = next;
  document.cookie = `gw_theme=${next}; path=/; max-age=31536000; samesite=strict`;
  document.dispatchEvent(new Event('themed'));
}

document.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.id === 'theme') switchTheme();
  else if (button.dataset.call) press(button);
  else if (button.dataset.copy !== undefined) copy(button);
});
document.addEventListener('change', (event) => {
  if (event.target.matches('[data-submit]')) event.target.form.requestSubmit();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => document.dispatchEvent(new Event('themed')));
setInterval(() => document.querySelectorAll('time').forEach(ago), 15000);

// A list that refreshes itself keeps what was ticked in it.
let ticked = [];
document.addEventListener('htmx:before:swap', () => { ticked = [...document.querySelectorAll('td.tick input:checked')].map((box) => box.value); });
document.addEventListener('htmx:after:swap', () => {
  for (const box of document.querySelectorAll('td.tick input')) box.checked = ticked.includes(box.value);
});
