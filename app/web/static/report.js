// Label efficiency: the score of each way of learning over the number of labelled rows.
import { Chart } from './charts.js';

const box = document.getElementById('curves');
const lines = JSON.parse(box.dataset.lines).map((line) => ({
  label: line.label, points: new Map(line.points.map((point) => [point.rows, point.mean])),
}));
const chart = new Chart(box.dataset.metric, lines, { main: true, axis: 'labelled rows', logX: true, drawPoints: true });
box.append(chart.element);
chart.draw();
