// Keys and receivers: forms that become calls, and secrets that are shown once.
import { call } from './app.js';

function reveal(told) {
  const box = document.getElementById('secret');
  box.querySelector('pre').textContent = told.key ?? told.secret ?? '';
  box.hidden = false;
  box.scrollIntoView({ block: 'nearest' });
}

function body(form) {
  const fields = form.elements;
  const ticked = (name) => [...form.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value);
  if (fields.url) return { url: fields.url.value, events: ticked('events') };
  const days = Number(fields.days.value);
  const ends = days ? { expires_at: Math.floor(Date.now() / 1000) + days * 86400 } : {};
  return { name: fields.name.value, scopes: ticked('scopes'), ...ends };
}

/** The list anew, without losing the secret that stands above it. */
async function again() {
  const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), 'text/html');
  document.querySelector('.columns > :first-child').replaceWith(page.querySelector('.columns > :first-child'));
}

for (const form of document.querySelectorAll('[data-create]')) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const problem = form.querySelector('.problem');
    problem.hidden = true;
    try {
      reveal(await call('POST', form.dataset.create, body(form)));
      form.reset();
      await again();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
  });
}
document.addEventListener('called', async (event) => { reveal(event.detail.told); await again(); });
