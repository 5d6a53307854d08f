// Bringing a file: with a bar, by choosing or dropping, and with the API's own words where it is refused.
import { csrf, make, toast } from './app.js';

const form = document.getElementById('upload-form');
const [drop, file, bar, problem] = ['drop', 'file', 'upload-bar', 'upload-problem'].map((id) => document.getElementById(id));

for (const kind of ['dragover', 'dragleave', 'drop']) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle('over', kind === 'dragover');
    if (kind === 'drop' && event.dataTransfer.files.length) file.files = event.dataTransfer.files;
  });
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  // Fields before the file: a wrong one is then refused before the bytes travel.
  const sent = new FormData();
  for (const name of ['name', 'modality', 'columns']) if (form.elements[name].value.trim()) sent.append(name, form.elements[name].value.trim());
  sent.append('file', file.files[0]);
  const request = new XMLHttpRequest();
  request.open('POST', '/v1/datasets');
  request.setRequestHeader('X-CSRF-Token', csrf());
  request.responseType = 'json';
  const button = form.querySelector('button.primary');
  const settle = (words) => { button.disabled = false; bar.hidden = true; problem.hidden = !words; problem.textContent = words; };
  request.upload.addEventListener('progress', (at) => { bar.value = at.lengthComputable ? (100 * at.loaded) / at.total : 0; });
  request.addEventListener('load', () => {
    if (request.status === 201) location.assign(`/ui/datasets/${request.response.id}`);
    else settle(request.response?.error?.message ?? `The server answered ${request.status}.`);
  });
  request.addEventListener('error', () => settle('The connection broke; nothing was kept. Please try again.'));
  [button.disabled, bar.hidden, bar.value, problem.hidden] = [true, false, 0, true];
  request.send(sent);
});
