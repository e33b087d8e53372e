// Elements of the page. Text goes in as text nodes alone, so that no name or log line is ever read as markup.

const SVG = 'http://www.w3.org/2000/svg';

function make(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// Returns an HTML element: el('button', {class: 'chip', click: () => ...}, 'text').
function el(tag, attributes, ...children) {
  return make(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return make(document.createElementNS(SVG, tag), attributes, children);
}

function select(label, options, chosen, change) {
  const control = el('select', {change: () => change(control.value)},
    options.map(([value, text]) => el('option', {value, selected: value === chosen}, text)));
  return el('label', {class: 'pick'}, el('span', null, label), control);
}

// Puts other controls in the place of those that are there; the keyboard stays on the one that it was on.
function replaceControls(parent, ...controls) {
  const all = () => [...parent.querySelectorAll('select, input, button')];
  const place = all().indexOf(document.activeElement);
  parent.replaceChildren(...controls);
  if (place >= 0) all()[place]?.focus({preventScroll: true});
}

// Puts text on the clipboard and says so on the button; pages from file:// have no navigator.clipboard in every browser.
async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el('textarea', {class: 'off', readonly: true});
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  const before = button.textContent;
  if (button.dataset.copied) return;
  button.dataset.copied = 'yes';
  button.textContent = 'copied';
  setTimeout(() => { button.textContent = before; delete button.dataset.copied; }, 1200);
}
