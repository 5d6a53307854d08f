// Sounds: the spectrogram is there at once, the waveform when the sound is first played or pointed at.

async function draw(figure) {
  if (figure.dataset.drawn) return;
  figure.dataset.drawn = 'yes';
  const reply = await fetch(figure.dataset.sound);
  if (!reply.ok) return;
  const context = new OfflineAudioContext(1, 1, 44100);
  let sound;
  try { sound = await context.decodeAudioData(await reply.arrayBuffer()); } catch { return; }
  const canvas = figure.querySelector('canvas');
  const samples = sound.getChannelData(0);
  canvas.hidden = false;
  const [width, height] = [canvas.clientWidth * devicePixelRatio, canvas.clientHeight * devicePixelRatio];
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext('2d');
  pen.fillStyle = getComputedStyle(figure.querySelector('figcaption')).color;
  const loudest = samples.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6);
  for (let x = 0; x < width; x += 1) {
    const from = Math.floor((x * samples.length) / width);
    const to = Math.max(from + 1, Math.floor(((x + 1) * samples.length) / width));
    let [low, high] = [0, 0];
    for (let at = from; at < to; at += 1) { low = Math.min(low, samples[at]); high = Math.max(high, samples[at]); }
    const [top, bottom] = [((1 - high / loudest) * height) / 2, ((1 - low / loudest) * height) / 2];
    pen.fillRect(x, top, 1, Math.max(1, bottom - top));
  }
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
});
const watch = () => document.querySelectorAll('[data-sound]').forEach((figure) => seen.observe(figure));
watch();
document.addEventListener('htmx:after:swap', watch);
