// Both directions with the networks that lie beside the page: photographs in, a PNG out, and back from that PNG alone.
"use strict";

const MOST = 512 * 512; // pixels of a photograph here; larger ones are reduced
const MODES = {
  hide: {
    task: "hiding-1", direction: "forward", inputs: ["Cover: what it shall look like", "Secret: what it shall hold"],
    what: "A photograph inside a photograph, in 8-bit pixels.", examples: ["coffee.jpg", "chelsea.jpg"], name: "stego.png",
    sides: ["cover", "stego"],
  },
  reveal: {task: "hiding-1", direction: "reverse", what: "The secret of a PNG that hide wrote, here or on the command line."},
  down: {
    task: "rescaling-x2", direction: "forward", inputs: ["Photograph"], examples: ["astronaut.jpg"], name: "small.png",
    what: "Half the size, looks like bicubic, and comes back.", sides: ["photograph", "small, enlarged"],
  },
  up: {task: "rescaling-x2", direction: "reverse", what: "The photograph of a PNG that down wrote. No super-resolution."},
  gray: {
    task: "decolorization", direction: "forward", inputs: ["Photograph"], examples: ["chelsea.jpg"], name: "grey.png",
    what: "One grey channel, from which the colours come back.", sides: ["photograph", "grey"],
  },
  color: {task: "decolorization", direction: "reverse", what: "The colours of a PNG that gray wrote. No colouring."},
};
const BACK = {hide: "reveal", down: "up", gray: "color"};
const OF_TASK = {"hiding-1": "reveal", "rescaling-x2": "up", decolorization: "color"};

let mode = "hide";
let chosen = []; // what each input holds: images, or the bytes of a PNG
let last = null; // what was written, and of what

/** A network beside the page, checked by the hash that the list of them says. */
async function networkFor(task, direction) {
  const list = await fetch("networks/index.json").then((response) => response.json()).catch(() => null);
  const entry = list?.[`${task} ${direction}`];
  if (!entry) throw new Refusal("The networks of this page are not there: `make docs` puts them beside it.");
  const response = await fetch(`networks/${entry.file}`, {integrity: entry.integrity});
  if (!response.ok) throw new Refusal(`The network ${entry.file} is not there.`);
  return new Uint8Array(await response.arrayBuffer());
}

const sessions = new Map();

/** The network's metadata and its session, made once. */
async function opened(task, direction) {
  const key = `${task} ${direction}`;
  if (!sessions.has(key)) {
    const bytes = await networkFor(task, direction);
    const network = readMetadata(bytes); // now, as the runtime's worker takes the bytes
    await runtime();
    const session = await ort.InferenceSession.create(bytes, {executionProviders: ["wasm"]});
    sessions.set(key, {network, session});
  }
  return sessions.get(key);
}

/** A photograph of any kind that the browser reads, as RGB, reduced to what is quick here and to fit into limits. */
async function photograph(file, limits = [Infinity, Infinity]) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Refusal(`${file.name} is no picture that this browser reads.`);
  }
  const {width, height} = bitmap;
  const scale = Math.min(1, Math.sqrt(MOST / (width * height)), limits[0] / width, limits[1] / height);
  const size = [width, height].map((side) => Math.max(1, Math.floor(side * scale)));
  const canvas = Object.assign(document.createElement("canvas"), {width: size[0], height: size[1]});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, ...size);
  context.drawImage(bitmap, 0, 0, ...size);
  bitmap.close();
  const {data} = context.getImageData(0, 0, ...size);
  const pixels = new Uint8Array(size[0] * size[1] * 3);
  for (let index = 0; index < size[0] * size[1]; index++) pixels.set(data.subarray(4 * index, 4 * index + 3), 3 * index);
  return {width: size[0], height: size[1], channels: 3, pixels};
}

function show(next) {
  mode = next;
  chosen = [];
  last = null;
  const {inputs = ["PNG, as it was written"], what, direction} = MODES[mode];
  document.querySelector(`#modes [value=${mode}]`).checked = true;
  document.getElementById("what").textContent = what;
  document.getElementById("example").hidden = direction === "reverse";
  document.getElementById("inputs").replaceChildren(...inputs.map((title, index) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), {
      type: "file", id: `file-${index}`, accept: direction === "reverse" ? "image/png,.png" : "image/*",
    });
    input.addEventListener("change", () => queued(() => take(index, input.files[0])));
    label.append(title, input, document.createElement("div"));
    label.addEventListener("dragover", () => label.classList.add("over"));
    label.addEventListener("dragleave", () => label.classList.remove("over"));
    label.addEventListener("drop", () => label.classList.remove("over"));
    return label;
  }));
  clear();
  say(direction === "reverse" ? "Choose a PNG, or drop it here." : "Choose, or drop pictures here. They stay in this browser.");
}

function clear() {
  const results = document.getElementById("results");
  for (const link of results.querySelectorAll("a")) URL.revokeObjectURL(link.href);
  results.replaceChildren();
  document.getElementById("back").hidden = true;
  const needed = MODES[mode].inputs?.length ?? 1;
  document.getElementById("run").disabled = Array.from({length: needed}, (_, at) => chosen[at]).some((item) => !item);
}

async function take(index, file) {
  if (!file) return;
  const place = document.querySelectorAll("#inputs label div")[index];
  const list = new DataTransfer(); // one that was dropped shows like one that was chosen
  list.items.add(file);
  document.getElementById(`file-${index}`).files = list.files;
  if (MODES[mode].direction === "reverse") {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const picture = await decodePng(bytes);
    const fitting = OF_TASK[picture.mark?.task];
    if (fitting && fitting !== mode) { // it says itself what it is for
      show(fitting);
      await take(0, file);
      return;
    }
    chosen[0] = {picture, name: file.name};
    place.replaceChildren(drawn(picture, file.name));
  } else {
    const limits = index && chosen[0] ? [chosen[0].image.width, chosen[0].image.height] : undefined;
    chosen[index] = {image: await photograph(file, limits), file, name: file.name};
    place.replaceChildren(drawn(chosen[index].image, file.name));
    if (index === 0 && chosen[1]) await take(1, chosen[1].file); // the secret fits into the cover
  }
  clear();
  say("");
}

/** PSNR in dB of two pictures of one size. */
function psnr(a, b) {
  let total = 0;
  for (let index = 0; index < a.pixels.length; index++) total += (a.pixels[index] - b.pixels[index]) ** 2;
  return total ? 10 * Math.log10(255 ** 2 * a.pixels.length / total) : Infinity;
}

/** Two pictures over each other, and what moves the line between them. */
function compared([before, after], names, note, ...more) {
  const figure = document.createElement("figure");
  const slider = Object.assign(document.createElement("div"), {className: "slider"});
  const top = drawn(after, names[1]);
  const line = Object.assign(document.createElement("div"), {className: "line"});
  slider.append(drawn(before, names[0]), top, line);
  const range = Object.assign(document.createElement("input"), {type: "range", min: 0, max: 100, value: 50});
  range.setAttribute("aria-label", `${names[0]} to the left, ${names[1]} to the right`);
  const move = () => {
    top.style.clipPath = `inset(0 0 0 ${range.value}%)`;
    line.style.left = `calc(${range.value}% - 1px)`;
  };
  range.addEventListener("input", move);
  slider.addEventListener("pointermove", (event) => {
    if (!event.buttons && event.pointerType === "mouse") return;
    const {left, width} = slider.getBoundingClientRect();
    range.value = 100 * (event.clientX - left) / width;
    move();
  });
  move();
  const labels = Object.assign(document.createElement("div"), {className: "names"});
  labels.append(...names.map((name) => Object.assign(document.createElement("span"), {textContent: name})));
  const caption = document.createElement("figcaption");
  caption.append(note, " ", ...more);
  figure.append(slider, range, labels, caption);
  return figure;
}

async function run() {
  clear();
  document.getElementById("run").disabled = true;
  const {task, direction, name, sides} = MODES[mode];
  const results = document.getElementById("results");
  say("Loading the network ...");
  const before = performance.now();
  const {network, session} = await opened(task, direction);
  say("Running ...");
  if (direction === "forward") {
    const images = chosen.map(({image}) => image);
    const picture = await convert(session, network, images);
    const file = await encodePng(picture);
    last = {file, images, mode};
    const same = mode === "hide" ? `${psnr(cutTo(picture, images[0]), images[0]).toFixed(2)} dB from the cover. ` : "";
    results.append(compared([images[0], picture], sides, `${picture.width}x${picture.height}. ${same}`, saving(file, name)));
    document.getElementById("back").hidden = false;
  } else {
    await bringBack(chosen[0].picture, chosen[0].name, null);
  }
  say(`Done in ${((performance.now() - before) / 1000).toFixed(1)} s.`, "done");
  document.getElementById("run").disabled = false;
}

const cutTo = (image, {width, height}) => cut(image, 0, 0, width, height);

/** Shows what comes back of a picture, beside the original where it is known. */
async function bringBack(picture, name, original) {
  const reverse = MODES[OF_TASK[picture.mark?.task] ?? mode];
  const {network, session} = await opened(reverse.task, "reverse");
  const [image] = await restore(session, network, picture, (done, all) => {
    if (all > 1) say(`Running: ${done} of ${all} tiles ...`);
  });
  const saved = saving(await encodePng(image), `${name.replace(/\.png$/i, "")}-back.png`);
  const same = original && image.channels === original.channels;
  const note = same ? `${psnr(image, original).toFixed(2)} dB, from the PNG alone.` : "";
  // the PNG beside it only where it looks like it: of other proportions it would be stretched
  const isAlike = Math.abs(picture.width * image.height / (picture.height * image.width) - 1) < 0.02;
  const [left, title] = original ? [original, "original"] : isAlike ? [picture, "the PNG"] : [image, "comes back"];
  document.getElementById("results").append(compared([left, image], [title, "comes back"], note, saved));
}

let queue = Promise.resolve();

/** Does one thing after the other, and says what went wrong. */
function queued(work) {
  queue = queue.then(work).catch((error) => {
    say(error instanceof Refusal ? error.message : `This did not work: ${error?.message ?? error}`, "error");
    document.getElementById("run").disabled = false;
  });
}

for (const name of Object.keys(MODES)) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), {type: "radio", name: "mode", value: name});
  input.addEventListener("change", () => show(name));
  label.append(input, name[0].toUpperCase() + name.slice(1));
  document.getElementById("modes").append(label);
}
document.getElementById("run").addEventListener("click", () => queued(run));
document.getElementById("example").addEventListener("click", () => queued(async () => {
  for (const [index, name] of MODES[mode].examples.entries()) {
    const response = await fetch(`pictures/${name}`);
    if (!response.ok) throw new Refusal("The examples of this page are not there: `make docs` puts them beside it.");
    await take(index, new File([await response.blob()], name, {type: "image/jpeg"}));
  }
}));
document.getElementById("back").addEventListener("click", () => queued(async () => {
  say("Running ...");
  document.getElementById("back").hidden = true;
  const {file, images, mode: forward} = last;
  const picture = await decodePng(new Uint8Array(await file.arrayBuffer())); // from the file's bytes alone
  await bringBack(picture, MODES[forward].name, images.at(-1));
  say(`Back by ${BACK[forward]}.`, "done");
}));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const labels = [...document.querySelectorAll("#inputs label")];
  const first = Math.max(0, labels.indexOf(event.target.closest?.("#inputs label")));
  [...event.dataTransfer.files].slice(0, labels.length - first)
    .forEach((file, index) => queued(() => take(first + index, file)));
});
show(mode);
