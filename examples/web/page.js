// What the page does with the files that it is given.
"use strict";

const chosen = {network: null, picture: null};

async function take(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const isNetwork = file.name.toLowerCase().endsWith(".onnx");
  const id = isNetwork ? "network" : "picture";
  chosen[id] = {name: file.name, bytes};
  const held = new DataTransfer(); // one that was dropped shows like one that was chosen
  held.items.add(file);
  document.getElementById(id).files = held.files;
}

async function run() {
  const results = document.getElementById("results");
  for (const link of results.querySelectorAll("a")) URL.revokeObjectURL(link.href);
  results.replaceChildren();
  if (!chosen.network || !chosen.picture) {
    say(chosen.network ? "Now the picture." : "Now the network.");
    return;
  }
  say("Running ...");
  const before = performance.now();
  const picture = await decodePng(chosen.picture.bytes);
  const network = readMetadata(chosen.network.bytes);
  await check(network, picture);
  await runtime();
  const session = await ort.InferenceSession.create(chosen.network.bytes, {executionProviders: ["wasm"]});
  try {
    const images = await restore(session, network, picture, (done, all) => {
      if (all > 1) say(`Running: ${done} of ${all} tiles ...`);
    });
    const stem = chosen.picture.name.replace(/\.png$/i, "");
    for (const image of images) results.append(await shown(image, `${stem}-${image.name.replace("_", "-")}.png`));
    const seconds = ((performance.now() - before) / 1000).toFixed(1);
    const left = picture.parts.exif || picture.parts.dpi ? " Metadata that the picture carries is left out." : "";
    const note = picture.mark ? left : " The picture does not say how it was made: whether anything is in it, nobody " +
      "checked, and what came back may have a border that is padding.";
    say(`Done in ${seconds} s.${note}`, "done");
  } finally {
    await session.release();
  }
}

async function shown(image, name) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  // the file, not the canvas's, which may not keep every pixel
  caption.append(`${image.width}x${image.height} `, saving(await encodePng(image), name));
  figure.append(drawn(image, image.name.replace("_", " ")), caption);
  return figure;
}

let queue = Promise.resolve();

function accept(files) {
  queue = queue.then(async () => {
    for (const file of files) await take(file);
    await run();
  }).catch((error) => {
    say(error instanceof Refusal ? error.message : `This did not work: ${error?.message ?? error}`, "error");
  });
}

for (const id of ["network", "picture"]) {
  document.getElementById(id).addEventListener("change", (event) => accept([...event.target.files]));
}
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  accept([...event.dataTransfer.files]);
});
