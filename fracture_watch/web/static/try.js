// Shows the answer of /predict on the page; without this script the form shows its JSON.
document.getElementById("try").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const answer = document.getElementById("answer");
  answer.textContent = "…";
  try {
    const headers = form.csrf_token ? { "X-CSRF-Token": form.csrf_token.value } : {};
    const response = await fetch(form.action, { method: "POST", headers, body: new FormData(form) });
    const body = await response.json();
    if (!response.ok) {
      answer.textContent = `${body.error.code}: ${body.error.detail}`;
      return;
    }
    answer.textContent =
      `${body.prediction}, probability ${body.probability.toFixed(3)} (threshold ${body.threshold.toFixed(3)}, ` +
      `${body.model.name} ${body.model.version}). ${body.disclaimer}`;
    if (body.heatmap) {
      const picture = new Image();
      picture.src = body.heatmap;
      picture.alt = "The radiograph with the regions that speak for a fracture";
      answer.append(picture);
    }
  } catch (error) {
    answer.textContent = `The service did not answer: ${error.message}`;
  }
});
