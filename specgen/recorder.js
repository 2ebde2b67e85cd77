// A button that records some seconds and sends float32 samples with their rate: the browser's half of `explorer.Recorder`.
async function record(seconds, say) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  const context = new AudioContext();
  await context.resume();
  const parts = [];
  const tap = context.createScriptProcessor(4096, 1, 1);
  tap.onaudioprocess = (event) => parts.push(event.inputBuffer.getChannelData(0).slice());
  context.createMediaStreamSource(stream).connect(tap);
  tap.connect(context.destination);
  for (let left = seconds; left > 0; left--) {
    say(`recording: ${left} s`);
    await new Promise((done) => setTimeout(done, 1000));
  }
  stream.getTracks().forEach((track) => track.stop());
  tap.disconnect();
  await context.close();
  const samples = new Float32Array(parts.reduce((n, part) => n + part.length, 0));
  if (!samples.length) throw new Error("the browser passed on no sound");
  parts.reduce((at, part) => (samples.set(part, at), at + part.length), 0);
  return [samples, context.sampleRate];
}

function render({ model, el }) {
  const button = document.createElement("button");
  const idle = `record ${model.get("seconds")} s`;
  button.className = "jupyter-button widget-button";
  button.textContent = idle;
  button.onclick = async () => {
    button.disabled = true;
    try {
      const [samples, rate] = await record(model.get("seconds"), (text) => (button.textContent = text));
      model.set("sample_rate", rate);
      model.set("samples", new DataView(samples.buffer));
    } catch (error) {
      model.set("problem", `no recording: ${error.message || error}`);
    }
    model.save_changes();
    button.textContent = idle;
    button.disabled = false;
  };
  el.append(button);
}

export default { render };
