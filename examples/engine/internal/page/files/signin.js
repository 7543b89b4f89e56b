// Signing in, and choosing a password of one's own where that has to be done first.

import {call, get, post} from './api.js';
import {h, text} from './dom.js';

function field(id, label, type, autocomplete, more) {
  return h('p', {class: 'field'}, h('label', {for: id}, label),
    h('input', {id, name: id, type, autocomplete, required: true, spellcheck: 'false', autocapitalize: 'none', ...more}));
}

const value = (form, id) => form.querySelector(`#${id}`).value;

// form makes a form that does one thing at a time and says what went wrong.
function form(heading, words, button, act, ...fields) {
  const wrong = h('p', {class: 'wrong', role: 'alert'});
  const submit = h('button', {type: 'submit', class: 'strong'}, button);
  const element = h('form', {class: 'signin', method: 'post', async submit(event) {
    event.preventDefault();
    submit.disabled = true;
    text(wrong, '');
    try {
      await act(element);
    } catch (error) {
      text(wrong, error.message);
      submit.disabled = false;
      element.querySelector('input:last-of-type')?.focus();
    }
  }}, h('h1', {tabindex: '-1'}, heading), words ? h('p', {class: 'muted'}, words) : null, fields, wrong, submit);
  return element;
}

// signIn returns the form. entered is called with the user.
export function signIn(words, entered) {
  const enter = async (username, password) => {
    const {status} = await post('/api/users/_login', {username, password}, {quiet: true});
    const user = await get('/api/users/current');
    if (status === 'SUCCESS_GRACE_PERIOD' || user.mustChangePassword) {
      const next = choose(user, password);
      element.replaceWith(next);
      next.querySelector('#new').focus();
      return;
    }
    entered(user);
  };
  const choose = (user, currentPassword) => form('Choose a password',
    'The one you signed in with is good for this alone. At least 12 characters.', 'Use this password', async (f) => {
      const password = value(f, 'new');
      if (password !== value(f, 'again')) throw new Error('The two passwords differ.');
      await call('PUT', `/api/users/${user.id}/password`, {currentPassword, password}, {quiet: true});
      await enter(user.username, password); // the change has ended the session
    },
    h('input', {type: 'text', name: 'username', value: user.username, autocomplete: 'username', hidden: true}),
    field('new', 'New password', 'password', 'new-password', {minlength: '12'}),
    field('again', 'The same again', 'password', 'new-password', {minlength: '12'}));
  const element = form('Sign in', words, 'Sign in', (f) => enter(value(f, 'username'), value(f, 'password')),
    field('username', 'Name', 'text', 'username'), field('password', 'Password', 'password', 'current-password'));
  return element;
}
