// A dependency that requires the package: for one-copy.mjs.
module.exports = { hqq: require('hqq'), js: require('hqq/js'), runtime: require('hqq/runtime') };
