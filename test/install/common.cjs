const use = require('./use.cjs');
use({ hqq: require('hqq'), js: require('hqq/js'), runtime: require('hqq/runtime') });
