// How do I get this? Commands, versions and digests.

function profileSection(profile) {
  const { report, origin, digests } = profile,
    name = profile.profile;
  const cells = Object.values(profile.cells || {});
  const data = unique(cells.map((cell) => cell.dataset_digest).filter(Boolean));
  return el(
    "section",
    { class: "card pad profile" },
    el("h2", {}, profile.name),
    el(
      "p",
      {},
      `${report.description[0].toUpperCase()}${report.description.slice(1)}. ${count(report.runs, "training run")}`,
      report.missing.length ? `, ${report.missing.length} missing` : "",
      ".",
    ),
    el("h3", {}, "Train it, or check what was trained"),
    command(`make reproduce PROFILE=${name}`),
    command(`collabench verify -p ${name}`),
    el("h3", {}, "What it was made with"),
    origin
      ? facts([
          ["Devices", origin.devices.join("; ")],
          ["Versions", origin.versions.join(", ")],
          ["Commits", origin.commits.join(", ")],
        ])
      : el("p", { class: "small muted" }, "This report does not record it."),
    el("h3", {}, "Digests (SHA-256)"),
    facts([
      ...Object.entries(digests).map(([file, digest]) => [file, el("code", { class: "digest" }, digest)]),
      ...data.map((digest) => ["data set", el("code", { class: "digest" }, digest)]),
    ]),
  );
}

VIEWS.reproduce = {
  title: "Reproduce",
  draw() {
    return [
      el("h1", {}, "How do I get this?"),
      el(
        "p",
        {},
        "In a clone of the repository, ",
        el("code", {}, "make reproduce"),
        " trains what is missing, builds the tables, compares them with the accepted ones byte for byte, and writes this page. ",
        el("code", {}, "collabench verify"),
        " hashes every result, builds the report again and trains a sample of runs again; it ends with exit code 0 if all of them agree.",
      ),
      command("git clone <address> collabench && cd collabench && make reproduce"),
      DATA.profiles.map(profileSection),
    ];
  },
};
