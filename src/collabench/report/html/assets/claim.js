// What is behind a claim: its quote, how it was tested, and every scope with its intervals.

function scopeWords(test) {
  return test.where.slice(0, 3).join(", ");
}

function partLine(part, claim) {
  const decimals = claim.unit.includes("per point") ? 4 : 2,
    signed = claim.unit !== "ratio";
  if (part.estimate === undefined) return part.note || "no value";
  const unit = claim.unit === "ratio" ? " times" : ` ${claim.unit}`;
  return [
    el("strong", {}, number(part.estimate, decimals, signed), unit),
    `, 95 % interval ${interval(part.low, part.high, decimals, signed)}, interval that decides ` +
      `${interval(part.adjusted_low, part.adjusted_high, decimals, signed)}, n ${part.n}`,
    part.p === undefined ? "" : `, p ${pValue(part.p)}`,
    part.published_effect === undefined ? "" : `, published ${number(part.published_effect, decimals, signed)}`,
    part.seeds_needed === undefined ? "" : `, seeds needed ${part.seeds_needed.toLocaleString("en")}`,
    part.note ? ` (${part.note.endsWith(" seeds") ? "to decide: " : ""}${part.note})` : "",
  ];
}

/** The look that decided or came last, what it spent of the error, and what a reader must know beside the verdict. */
function lookWords(test) {
  if (!test.look) return [];
  const spent =
    test.error === undefined ? "" : `; ${short(100 * test.spent)} % of ${short(100 * test.error)} % of error spent`;
  return [
    `look ${test.look} of ${test.looks.length}, at ${test.n} seeds${spent}`,
    test.stopped ? `stopped: it would need more than ${test.looks[test.looks.length - 1]} seeds` : "",
    test.early ? "decided early, so the estimate overstates the effect on average" : "",
    test.smallest_effect === undefined ? "" : `smallest effect of interest ${short(test.smallest_effect)}`,
  ];
}

function testBlock(test, claim, at) {
  const parts = test.parts || [],
    known = parts.filter((part) => part.estimate !== undefined);
  const remarks = [
    test.published
      ? "the paper's own data set and backbone"
      : "an analogue: data set or backbone are not the paper's",
    test.declared_after_runs && claim.unit ? "hypothesis written down after these runs" : "",
    ...lookWords(test),
    test.adjusted_p === undefined ? "" : `p of support over looks and family ${pValue(test.adjusted_p)}`,
    test.standing === "refuted" && claim.kind === "statistical" ? DATA.untuned : "",
    test.note || "",
  ].filter(Boolean);
  return el(
    "li",
    { class: "test" },
    el(
      "p",
      {},
      chip(test.standing),
      " ",
      test.compared ? `${test.compared}: ` : "",
      scopeWords(test),
      el("span", { class: "muted" }, ` · ${test.where[3]} · profile ${test.profile}`),
    ),
    remarks.length
      ? el("p", { class: "small muted" }, `${remarks.map((remark) => remark.replace(/\.$/, "")).join("; ")}.`)
      : null,
    el(
      "ul",
      { class: "plain parts" },
      parts.map((part) =>
        el(
          "li",
          {},
          el(
            "div",
            {},
            el("div", { class: "small" }, part.compared),
            el("div", { class: "small muted" }, partLine(part, claim)),
          ),
          at && part.estimate !== undefined
            ? forest([part], claim, at, { width: 240, height: 18, axis: part === known[known.length - 1] })
            : null,
        ),
      ),
    ),
  );
}

function details(claim) {
  const parts = claim.tests.flatMap((test) => test.parts || []).filter((part) => part.estimate !== undefined);
  const at = parts.length ? scale(reach(parts, claim), 8, 232, claim.unit === "ratio") : null;
  return [
    el("blockquote", {}, `“${claim.quote}” `, el("cite", {}, claim.source)),
    facts([
      ["Tested as", claim.hypothesis],
      ["Reading", claim.reading],
      ["Kind", `about ${KINDS[claim.kind]}`],
    ]),
    el(
      "ul",
      { class: "plain tests" },
      claim.tests.map((test) => testBlock(test, claim, at)),
    ),
    at
      ? el(
          "p",
          { class: "small muted key" },
          "Dot: estimate, method minus baseline. Thick: 95 % interval. Thin: the interval " +
            "that decides, widened for all tests of the paper. Tinted: the claimed side.",
        )
      : null,
    claim.not_run.length
      ? el(
          "details",
          { class: "small" },
          el("summary", {}, `Not run in ${count(claim.not_run.length, "declared scope")}`),
          el(
            "ul",
            {},
            claim.not_run.map((scope) =>
              el(
                "li",
                {},
                scope.where.join(", "),
                scope.profile ? ` (profile ${scope.profile})` : " (no profile)",
                scope.published ? ": the paper's own setting" : "",
              ),
            ),
          ),
        )
      : null,
    el("p", { class: "small noprint" }, el("a", { href: link("claims", {}, [claim.id]) }, "Link to this claim")),
  ];
}
