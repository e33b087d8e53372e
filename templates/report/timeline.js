// The attempts of an experiment's jobs on one time axis: bars while they ran, dashes while they waited for it.

const ROW_HEIGHT = 22;

// jobs: [{job, submitted, attempts: [[number, state, start, end, host, cause]]}], times in seconds since 1970.
function timeline(jobs, width) {
  const known = jobs.filter((job) => (job.attempts || []).some(([, , start, end]) => start !== null && end !== null));
  if (!known.length) return null;
  const moments = known.flatMap((job) => [queuedFrom(job), ...job.attempts.flatMap(([, , start, end]) => [start, end])]).filter((moment) => moment !== null);
  const [first, last] = [Math.min(...moments), Math.max(...moments)];
  const left = Math.min(Math.max(...known.map((job) => measure(job.job))) + 14, width * 0.4);
  const place = (moment) => left + (moment - first) / (last - first || 1) * (width - left - 4);
  const height = known.length * ROW_HEIGHT + 20;
  const row = (job, number) => {
    const top = number * ROW_HEIGHT + 3;
    const starts = job.attempts.map(([, , start]) => start);
    const ends = job.attempts.map(([, , , end]) => end);
    return svg('g', null, svg('text', {x: 0, y: top + 13}, shortName(job.job)),
      svg('line', {class: 'waiting', x1: place(queuedFrom(job) || starts[0]), x2: place(ends[ends.length - 1]), y1: top + 9, y2: top + 9}),
      job.attempts.map(([count, state, start, end, host, cause]) => svg('rect', {
        class: `attempt ${stateClass(state)}`, x: place(start), y: top + 2, width: Math.max(place(end) - place(start), 2), height: 14, rx: 3,
      }, svg('title', null, `attempt ${count}: ${state.replaceAll('_', ' ')} after ${durationText(end - start)} on ${host}${cause ? `: ${cause}` : ''}`))));
  };
  return svg('svg', {viewBox: `0 0 ${width} ${height}`, width, height, class: 'timeline', role: 'img', 'aria-label': 'attempts over time'},
    known.map(row),
    svg('text', {x: left, y: height - 4, class: 'soft'}, momentText(first)),
    svg('text', {x: width - 4, y: height - 4, class: 'soft', 'text-anchor': 'end'}, `+ ${durationText(last - first)}`));
}

// When a job was submitted, if that was before it started; a later submit began another course.
function queuedFrom({submitted, attempts}) {
  return submitted && submitted < attempts[0][2] ? submitted : null;
}

function momentText(seconds) {
  return `${new Date(seconds * 1000).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}

function durationText(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${String(Math.floor(seconds % 3600 / 60)).padStart(2, '0')} min`;
}
