"use strict";

/** Three digits of a number, with K, M or G where it is large. */
function short(value) {
  const size = Math.abs(value);
  const [by, name] = size >= 1e9 ? [1e9, " G"] : size >= 1e6 ? [1e6, " M"]
    : size >= 1e4 ? [1e3, " K"] : [1, ""];
  return Number((value / by).toPrecision(3)) + name;
}

function seconds(value) {
  const size = Math.abs(value);
  if (size >= 120) return `${short(value / 60)} min`;
  if (size >= 1 || size === 0) return `${short(value)} s`;
  return size >= 0.001 ? `${short(1e3 * value)} ms` : `${short(1e6 * value)} µs`;
}

function scaled(value, base, names) {
  let power = 0;
  while (Math.abs(value) >= base && power < names.length - 1) {
    value /= base;
    power += 1;
  }
  return `${short(value)} ${names[power]}`;
}

/** By unit, as Grafana calls it. */
const UNITS = {
  s: seconds,
  ms: (value) => seconds(value / 1e3),
  percentunit: (value) => `${short(100 * value)} %`,
  reqps: (value) => `${short(value)} req/s`,
  bytes: (value) => scaled(value, 1024, ["B", "KiB", "MiB", "GiB"]),
  Bps: (value) => scaled(value, 1000, ["B/s", "kB/s", "MB/s", "GB/s"]),
};

function inUnit(value, unit) {
  return value === null || value === undefined ? "" : (UNITS[unit] ?? short)(value);
}

/** Hours, minutes and seconds, in UTC. */
function clock(at) {
  return new Date(1e3 * at).toISOString().slice(11, 19);
}
